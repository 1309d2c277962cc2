//! The best schedule for a constraint: a pure function over everything measured so far.
//!
//! It looks at the front under (latency ratio, quality) of all evaluations that satisfy the constraint, not at the
//! front of the search's own objectives: a search for MACs still answers a question about latency.

use evocache_proto::domain::{CandidateId, Direction, Measurement, SearchSpec};

/// What the answer must satisfy. "Quality" is the search's first quality objective, in its own direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Constraint {
    /// Latency over the uncached run's, at most.
    MaxLatencyRatio(f64),
    /// The uncached run's latency over the candidate's, at least.
    MinSpeedup(f64),
    /// Microseconds per image, at most.
    MaxLatencyUs(f64),
    /// Quality at least this good: at least the value if maximised, at most the value if minimised.
    MinQuality(f64),
    /// Quality loses at most `1 - ratio` of the uncached run's magnitude. For a positive, maximised metric that is
    /// quality over the uncached run's, at least; it also holds a meaning for minimised and negative ones.
    MinQualityRatio(f64),
    /// Peak bytes of stored outputs per image, at most.
    MaxCacheBytes(u64),
}

/// Which of those that satisfy the constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preference {
    /// The smallest latency ratio.
    Fastest,
    /// The best quality.
    BestQuality,
    /// The front's member farthest from the line between its fastest and its best, both axes scaled to the front.
    Knee,
}

/// What a question needs to know of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rating {
    /// Which candidate.
    pub candidate: CandidateId,
    /// Latency over the uncached run's.
    pub latency_ratio: f64,
    /// Microseconds per image.
    pub latency_us: f64,
    /// Mean of the quality metric.
    pub quality: f64,
    /// The uncached run's.
    pub baseline_quality: f64,
    /// Peak bytes of stored outputs.
    pub cache_bytes: u64,
}

impl Rating {
    /// The rating of a measurement with what is believed of its latency ratio; `None` if it lacks the search's quality
    /// metric.
    pub fn new(
        spec: &SearchSpec,
        candidate: CandidateId,
        measurement: &Measurement,
        latency_ratio: f64,
    ) -> Option<Self> {
        let quality = measurement.metric(&spec.quality()?.metric)?;
        Some(Self {
            candidate,
            latency_ratio,
            latency_us: latency_ratio * measurement.baseline_latency(),
            quality: quality.mean(),
            baseline_quality: quality.baseline_mean,
            cache_bytes: measurement.peak_cache_bytes,
        })
    }
}

/// The answer to a question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// This candidate satisfies the constraint and is the preferred one.
    Found(CandidateId),
    /// Nothing satisfies the constraint; this comes nearest.
    Nearest(Miss),
    /// Nothing was measured yet.
    Nothing,
}

/// The candidate that comes nearest to a constraint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Miss {
    /// Which candidate.
    pub candidate: CandidateId,
    /// What it has of the constrained quantity, in the constraint's unit.
    pub value: f64,
    /// What was asked for.
    pub wanted: f64,
}

impl Miss {
    /// By how much it misses, in the constraint's unit; positive.
    pub fn by(&self) -> f64 {
        (self.value - self.wanted).abs()
    }
}

/// The best evaluation; see [`best_rating`]. Evaluations without the search's quality metric are passed over.
pub fn best(
    spec: &SearchSpec,
    ratings: impl IntoIterator<Item = Rating>,
    constraint: Option<Constraint>,
    preference: Preference,
) -> Answer {
    let Some(quality) = spec.quality() else { return Answer::Nothing };
    let ratings: Vec<Rating> = ratings.into_iter().collect();
    best_rating(quality.direction, &ratings, constraint, preference)
}

/// The best of `ratings` when quality is better in this `direction`. Ties go to the better other axis, then to less
/// cache memory, then to the smaller candidate id.
pub fn best_rating(
    direction: Direction,
    ratings: &[Rating],
    constraint: Option<Constraint>,
    preference: Preference,
) -> Answer {
    let loss = |r: &Rating| match direction {
        Direction::Minimize => r.quality,
        Direction::Maximize => -r.quality,
    };
    let excess = |r: &Rating| constraint.map_or(0.0, |c| c.measure(r, direction).excess);
    let by_latency = |a: &Rating, b: &Rating| {
        let tie = a.latency_ratio.total_cmp(&b.latency_ratio).then(loss(a).total_cmp(&loss(b)));
        tie.then(a.cache_bytes.cmp(&b.cache_bytes)).then(a.candidate.cmp(&b.candidate))
    };
    let mut good: Vec<&Rating> = ratings.iter().filter(|r| excess(r) <= 0.0).collect();
    if good.is_empty() {
        let nearest = ratings.iter().min_by(|a, b| excess(a).total_cmp(&excess(b)).then_with(|| by_latency(a, b)));
        return match (nearest, constraint) {
            (Some(r), Some(constraint)) => {
                let Measured { value, wanted, .. } = constraint.measure(r, direction);
                Answer::Nearest(Miss { candidate: r.candidate, value, wanted })
            }
            _ => Answer::Nothing,
        };
    }
    good.sort_by(|a, b| by_latency(a, b));
    let mut least = f64::INFINITY;
    good.retain(|r| {
        let joins = loss(r) < least;
        least = least.min(loss(r));
        joins
    });
    let chosen = match preference {
        Preference::Fastest => good.first(),
        Preference::BestQuality => good.last(),
        Preference::Knee => knee(&good, loss),
    };
    chosen.map_or(Answer::Nothing, |r| Answer::Found(r.candidate))
}

/// `front` is sorted by latency, so quality only gets better along it.
fn knee<'a>(front: &'a [&'a Rating], loss: impl Fn(&Rating) -> f64) -> Option<&'a &'a Rating> {
    let (first, last) = (front.first()?, front.last()?);
    let width = last.latency_ratio - first.latency_ratio;
    let height = loss(first) - loss(last);
    if front.len() < 3 {
        // Two ends and no bend: as far from the line one as the other. The slower one gives up the least.
        return front.last();
    }
    // In the unit square the line runs from (0, 1) to (1, 0); the distance from it is (1 - x - y) / sqrt(2).
    let below = |r: &Rating| 1.0 - (r.latency_ratio - first.latency_ratio) / width - (loss(r) - loss(last)) / height;
    front.iter().rev().max_by(|a, b| below(a).total_cmp(&below(b)))
}

struct Measured {
    value: f64,
    wanted: f64,
    /// Positive if the constraint is violated.
    excess: f64,
}

impl Constraint {
    fn measure(self, r: &Rating, direction: Direction) -> Measured {
        let at_most = |value: f64, wanted: f64| Measured { value, wanted, excess: value - wanted };
        let at_least = |value: f64, wanted: f64| Measured { value, wanted, excess: wanted - value };
        match self {
            Self::MaxLatencyRatio(most) => at_most(r.latency_ratio, most),
            Self::MinSpeedup(least) => at_least(1.0 / r.latency_ratio, least),
            Self::MaxLatencyUs(most) => at_most(r.latency_us, most),
            Self::MaxCacheBytes(most) => at_most(r.cache_bytes as f64, most as f64),
            Self::MinQuality(wanted) => match direction {
                Direction::Maximize => at_least(r.quality, wanted),
                Direction::Minimize => at_most(r.quality, wanted),
            },
            Self::MinQualityRatio(least) => at_least(quality_ratio(r, direction), least),
        }
    }
}

/// `1 - loss / |baseline|`, where loss is how much worse than the uncached run the candidate is. With a baseline of
/// zero any loss at all is all of it: the ratio is 1 without loss and minus infinity with one.
fn quality_ratio(r: &Rating, direction: Direction) -> f64 {
    let loss = match direction {
        Direction::Maximize => r.baseline_quality - r.quality,
        Direction::Minimize => r.quality - r.baseline_quality,
    };
    if r.baseline_quality == 0.0 && loss == 0.0 {
        return 1.0;
    }
    1.0 - loss / r.baseline_quality.abs()
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
