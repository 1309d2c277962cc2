//! The best schedule for some conditions: a pure function over everything measured so far, and its answer in words.
//!
//! An answer keeps the bounds of the search's objectives, unless it is asked to look beyond. Of what is left it looks at
//! the front under (latency ratio, quality), not at the front of the search's own objectives: a search for
//! multiply-accumulates still answers a question about latency. Absent: how a question is read and an answer is sent.

use std::fmt;

use evocache_proto::domain::{
    CandidateId, Direction, Measurement, MetricDeclaration, SearchSpec, builtin_direction, quality_ratio,
};

/// The name of the uncached latency over a schedule's, beside the built-in metrics.
pub const SPEEDUP: &str = "speedup";

/// Which side of a value is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value or more.
    AtLeast,
    /// The value or less.
    AtMost,
}

/// What a schedule must have of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// A built-in metric, [`SPEEDUP`], or one that the workers declare.
    pub metric: String,
    /// Which side.
    pub operator: Operator,
    /// Of which value.
    pub value: f64,
    /// Whether the value is the share kept of the uncached run's quality.
    pub of_uncached: bool,
}

impl Condition {
    /// The value or more.
    pub fn at_least(metric: &str, value: f64) -> Self {
        Self { metric: metric.to_owned(), operator: Operator::AtLeast, value, of_uncached: false }
    }

    /// The value or less.
    pub fn at_most(metric: &str, value: f64) -> Self {
        Self { operator: Operator::AtMost, ..Self::at_least(metric, value) }
    }

    /// As good as the value or better.
    pub fn as_good_as(metric: &str, direction: Direction, value: f64) -> Self {
        match direction {
            Direction::Minimize => Self::at_most(metric, value),
            Direction::Maximize => Self::at_least(metric, value),
        }
    }

    /// At least this share of the uncached run's quality.
    pub fn keeps(metric: &str, share: f64) -> Self {
        Self { of_uncached: true, ..Self::at_least(metric, share) }
    }

    /// How far a value misses it, relative to what is wanted; not positive if it does not.
    fn excess(&self, value: f64) -> f64 {
        let excess = match self.operator {
            Operator::AtLeast => self.value - value,
            Operator::AtMost => value - self.value,
        };
        if excess <= 0.0 || self.value == 0.0 { excess } else { excess / self.value.abs() }
    }

    fn show(&self, value: f64) -> String {
        match self.metric.as_str() {
            _ if self.of_uncached => format!("{} of uncached", percent(value)),
            SPEEDUP => format!("{value:.2}x"),
            "latency_us" if value.abs() < 1e3 => format!("{:.3} ms", value / 1e3),
            "latency_us" => format!("{:.2} ms", value / 1e3),
            "latency_ratio" | "macs_ratio" | "cache_hit_rate" => percent(value),
            "cache_bytes" => format!("{:.1} KiB", value / 1024.0),
            "macs" => format!("{value:.3e}"),
            _ => format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned(),
        }
    }

    fn name(&self) -> &str {
        match self.metric.as_str() {
            SPEEDUP => "speed-up",
            "latency_us" => "latency",
            "cache_bytes" => "cache",
            other => other,
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::AtLeast => ">=",
            Operator::AtMost => "<=",
        };
        write!(f, "{} {operator} {}", self.name(), self.show(self.value))
    }
}

/// Why a question has no answer whatever is measured.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuestionError {
    /// No such metric.
    #[error("no metric '{metric}' is measured in this search; there are {known}")]
    Unknown {
        /// As it was asked for.
        metric: String,
        /// What there is.
        known: String,
    },
    /// A share of what is no quality.
    #[error("'{0}' is no quality metric, so there is no share of the uncached run's to keep")]
    NoQuality(String),
    /// A share of nothing.
    #[error("the uncached run's '{0}' is 0, so there is no share of it to keep; ask for a value of it")]
    NoShare(String),
    /// A value that no metric has.
    #[error("'{metric}' is compared with {value}, which is no number")]
    NotFinite {
        /// Of which metric.
        metric: String,
        /// The value.
        value: f64,
    },
}

/// Which of those that satisfy the conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preference {
    /// The smallest latency ratio.
    Fastest,
    /// The best quality.
    BestQuality,
    /// The front's member farthest from the line between its fastest and its best, both axes scaled to the front.
    Knee,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// All of them hold.
    pub conditions: Vec<Condition>,
    /// Which of those that are left.
    pub preference: Preference,
    /// Whether the objectives' bounds need not be kept.
    pub ignore_bounds: bool,
}

impl Question {
    /// Whether each condition can be judged by what the workers of the search measure.
    pub fn check(&self, declared: &[MetricDeclaration]) -> Result<(), QuestionError> {
        for condition in &self.conditions {
            let metric = &condition.metric;
            let builtin = metric == SPEEDUP || builtin_direction(metric).is_some();
            if !builtin && !declared.iter().any(|m| m.name == *metric) {
                let known = declared.iter().map(|m| m.name.as_str());
                let builtin = evocache_proto::domain::BUILTIN_METRICS.iter().map(|(name, ..)| *name);
                let known: Vec<&str> = known.chain([SPEEDUP]).chain(builtin).collect();
                return Err(QuestionError::Unknown { metric: metric.clone(), known: known.join(", ") });
            }
            if builtin && condition.of_uncached {
                return Err(QuestionError::NoQuality(metric.clone()));
            }
            if !condition.value.is_finite() {
                return Err(QuestionError::NotFinite { metric: metric.clone(), value: condition.value });
            }
        }
        Ok(())
    }
}

/// The bounds of a search's objectives as conditions.
pub fn bounds(spec: &SearchSpec) -> Vec<Condition> {
    let bound = |o: &evocache_proto::domain::Objective| Some(Condition::as_good_as(&o.metric, o.direction, o.bound?));
    spec.objectives.iter().filter_map(bound).collect()
}

/// What a question needs to know of one schedule: a measurement of it, and what is believed of its latency.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Which candidate.
    pub candidate: CandidateId,
    /// What was measured.
    pub measurement: &'a Measurement,
    /// Share of decisions served from the cache.
    pub cache_hit_rate: f64,
    /// Latency over the uncached run's.
    pub latency_ratio: f64,
    /// Microseconds per image.
    pub latency_us: f64,
}

impl Standing<'_> {
    fn value(&self, metric: &str) -> Option<f64> {
        match metric {
            SPEEDUP => Some(1.0 / self.latency_ratio),
            "latency_ratio" => Some(self.latency_ratio),
            "latency_us" => Some(self.latency_us),
            other => self.measurement.value(other, self.cache_hit_rate),
        }
    }

    /// What it has of a condition's quantity. The direction is that of the condition's metric.
    fn of(&self, condition: &Condition, direction: Option<Direction>) -> Option<f64> {
        if !condition.of_uncached {
            return self.value(&condition.metric);
        }
        let measured = self.measurement.metric(&condition.metric)?;
        quality_ratio(direction?, measured.mean(), measured.baseline_mean)
    }
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// This candidate satisfies everything and is the preferred one.
    Found(CandidateId),
    /// Nothing satisfies everything; this comes nearest.
    Nearest(Miss),
    /// Nothing was measured yet.
    Nothing,
}

/// The candidate that comes nearest, and what it misses.
#[derive(Debug, Clone, PartialEq)]
pub struct Miss {
    /// Which candidate.
    pub candidate: CandidateId,
    /// All that was asked.
    pub conditions: Vec<Condition>,
    /// What the search asks of every answer.
    pub bounds: Vec<Condition>,
    /// The conditions that it misses, each with what it has instead.
    pub missed: Vec<(Condition, f64)>,
    /// Beyond the bounds, a candidate that satisfies the rest, and the bounds that it does not keep.
    pub beyond: Option<(CandidateId, Vec<Condition>)>,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            |conditions: &[Condition]| conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let bounds = if self.bounds.len() == 1 { "bound" } else { "bounds" };
        match (self.conditions.is_empty(), self.bounds.is_empty()) {
            (true, _) => write!(f, "no schedule keeps the search's {bounds} {}", all(&self.bounds))?,
            (false, true) => write!(f, "no schedule has {}", all(&self.conditions))?,
            (false, false) => {
                let (asked, kept) = (all(&self.conditions), all(&self.bounds));
                write!(f, "no schedule has {asked} within the search's {bounds} {kept}")?;
            }
        }
        write!(f, "; candidate {} comes nearest, with", self.candidate)?;
        for (i, (condition, value)) in self.missed.iter().enumerate() {
            let and = if i == 0 { "" } else { " and" };
            write!(f, "{and} {} {}", condition.name(), condition.show(*value))?;
        }
        if let Some((candidate, bounds)) = &self.beyond {
            write!(f, "; candidate {candidate} has the rest, outside of the bound {}", all(bounds))?;
        }
        Ok(())
    }
}

/// The best of `standings` for a question that was checked. Ties go to the better other axis, then to less cache memory,
/// then to the smaller candidate id. Schedules without the search's quality metric are passed over.
pub fn best(
    spec: &SearchSpec,
    declared: &[MetricDeclaration],
    standings: &[Standing<'_>],
    question: &Question,
) -> Result<Answer, QuestionError> {
    let Some(quality) = spec.quality() else { return Ok(Answer::Nothing) };
    let direction = |metric: &str| declared.iter().find(|m| m.name == metric).map(|m| m.direction);
    let bounds = if question.ignore_bounds { vec![] } else { bounds(spec) };
    let judged = |conditions: &[Condition]| -> Result<Vec<Candidate>, QuestionError> {
        let each = standings.iter().filter_map(|standing| {
            let value = standing.measurement.metric(&quality.metric)?.mean();
            let mut excess = 0.0;
            for condition in conditions {
                match standing.of(condition, direction(&condition.metric)) {
                    Some(value) => excess += condition.excess(value).max(0.0),
                    None if condition.of_uncached => {
                        return Some(Err(QuestionError::NoShare(condition.metric.clone())));
                    }
                    None => excess = f64::INFINITY,
                }
            }
            Some(Ok(Candidate {
                id: standing.candidate,
                latency_ratio: standing.latency_ratio,
                loss: if quality.direction == Direction::Minimize { value } else { -value },
                cache_bytes: standing.measurement.peak_cache_bytes,
                excess,
            }))
        });
        each.collect()
    };
    let conditions: Vec<Condition> = question.conditions.iter().chain(&bounds).cloned().collect();
    let all = judged(&conditions)?;
    if let Some(found) = choose(&all, question.preference) {
        return Ok(Answer::Found(found));
    }
    let nearest = all.iter().min_by(|a, b| a.excess.total_cmp(&b.excess).then_with(|| a.order(b)));
    let Some(nearest) = nearest else { return Ok(Answer::Nothing) };
    let missed = |candidate: CandidateId, of: &[Condition]| -> Vec<(Condition, f64)> {
        let standing = standings.iter().find(|s| s.candidate == candidate);
        let value = |c: &Condition| standing.and_then(|s| s.of(c, direction(&c.metric)));
        let missed = of.iter().filter_map(|c| Some((c.clone(), value(c)?)));
        missed.filter(|(condition, value)| condition.excess(*value) > 0.0).collect()
    };
    let beyond = if bounds.is_empty() { None } else { choose(&judged(&question.conditions)?, question.preference) };
    let broken = |id| missed(id, &bounds).into_iter().map(|(condition, _)| condition).collect();
    Ok(Answer::Nearest(Miss {
        candidate: nearest.id,
        missed: missed(nearest.id, &conditions),
        beyond: beyond.map(|id| (id, broken(id))),
        conditions: question.conditions.clone(),
        bounds,
    }))
}

/// A schedule on its two axes, and how far it is from what is asked.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    id: CandidateId,
    latency_ratio: f64,
    /// Quality, so that less is better.
    loss: f64,
    cache_bytes: u64,
    excess: f64,
}

impl Candidate {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let tie = self.latency_ratio.total_cmp(&other.latency_ratio).then(self.loss.total_cmp(&other.loss));
        tie.then(self.cache_bytes.cmp(&other.cache_bytes)).then(self.id.cmp(&other.id))
    }
}

fn choose(candidates: &[Candidate], preference: Preference) -> Option<CandidateId> {
    let mut good: Vec<&Candidate> = candidates.iter().filter(|c| c.excess <= 0.0).collect();
    good.sort_by(|a, b| a.order(b));
    let mut least = f64::INFINITY;
    good.retain(|c| {
        let joins = c.loss < least;
        least = least.min(c.loss);
        joins
    });
    let chosen = match preference {
        Preference::Fastest => good.first(),
        Preference::BestQuality => good.last(),
        Preference::Knee => knee(&good),
    };
    chosen.map(|c| c.id)
}

/// `front` is sorted by latency, so quality only gets better along it.
fn knee<'a>(front: &'a [&'a Candidate]) -> Option<&'a &'a Candidate> {
    let (first, last) = (front.first()?, front.last()?);
    let (width, height) = (last.latency_ratio - first.latency_ratio, first.loss - last.loss);
    if front.len() < 3 {
        // Two ends and no bend: as far from the line one as the other. The slower one gives up the least.
        return front.last();
    }
    // In the unit square the line runs from (0, 1) to (1, 0); the distance from it is (1 - x - y) / sqrt(2).
    let below = |c: &Candidate| 1.0 - (c.latency_ratio - first.latency_ratio) / width - (c.loss - last.loss) / height;
    front.iter().rev().max_by(|a, b| below(a).total_cmp(&below(b)))
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
