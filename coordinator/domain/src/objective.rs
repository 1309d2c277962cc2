//! From measurements to scores: what a search's objectives are worth for one candidate.
//!
//! **Values** are the objectives in their own units, negated where larger is better. Dominance compares them.
//!
//! **Violation** is the sum over the bounds of how far each is exceeded, divided by the bound's magnitude.
//!
//! **Losses** are what hypervolume is measured in: `(value - ideal) / (reference - ideal)`, so 0 is ideal and the
//! reference point is 1 everywhere. A candidate that beats the uncached run's quality has a loss below 0; in the
//! hypervolume it counts as 0, so that this is in `[0, 1]`. The ideal and the reference of an objective are:
//!
//! | objective | ideal | reference | with a bound |
//! |---|---|---|---|
//! | `latency_us`, `latency_ratio`, `macs`, `macs_ratio` | 0 | the uncached run's | the bound |
//! | `cache_hit_rate` | 1 | 0 | the bound |
//! | `cache_bytes` | 0 | 1 TiB, on a logarithmic scale | the bound, on a linear scale |
//! | a maximised quality metric | the uncached run's | 0 | the bound |
//! | a minimised quality metric | the uncached run's | twice the uncached run's | the bound |
//!
//! - The uncached run stores nothing, so it gives no scale for `cache_bytes`; a logarithm needs none.
//! - A metric such as PSNR or LPIPS to the uncached picture has the metric's best value as its baseline (a cap, or 0).
//!   A maximised one is measured from 0 as any other. A minimised one with a baseline of 0 has the reference 1.
//! - A maximised metric whose baseline is not positive (a reward may be negative) has its reference as far below the
//!   baseline as the baseline's magnitude, and at least 1.
//! - A bound that the uncached run itself does not keep leaves no room between ideal and reference; the loss then runs
//!   on from 1 at the bound by the bound's magnitude.
//! - The uncached run is the one of the same measurement, so that a worker on another device does not shift losses.
//!
//! Absent: NaN. `Measurement::check` refuses it, and a score with a number that is not finite is refused here.

use evocache_proto::domain::{Direction, Kept, Measurement, SearchSpec, builtin_direction};

use super::pareto::{MAX_OBJECTIVES, Score};

/// The logarithmic reference for `cache_bytes`.
const CACHE_REFERENCE_BYTES: f64 = (1u64 << 40) as f64;

/// Why a measurement has no score.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScoreError {
    /// The measurement lacks an objective.
    #[error("objective '{0}' was not measured")]
    Missing(String),
    /// An objective that cannot be compared.
    #[error("objective '{metric}' is {value}")]
    NotFinite {
        /// Which objective.
        metric: String,
        /// Its value.
        value: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Latency or MACs.
    Cost,
    HitRate,
    CacheBytes,
    Quality,
}

#[derive(Debug, Clone, PartialEq)]
struct Scale {
    metric: String,
    direction: Direction,
    bound: Option<f64>,
    kind: Kind,
}

/// What was observed of one schedule: each objective in its own unit beside what the uncached run has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    values: [f64; MAX_OBJECTIVES],
    baselines: [f64; MAX_OBJECTIVES],
}

impl Observed {
    /// The mean of `count` observations and one more.
    pub fn and(&self, count: u32, other: &Self) -> Self {
        let n = f64::from(count);
        let mean = |a: &[f64; MAX_OBJECTIVES], b: &[f64; MAX_OBJECTIVES]| {
            std::array::from_fn(|i| if a[i] == b[i] { a[i] } else { (a[i] * n + b[i]) / (n + 1.0) })
        };
        Self { values: mean(&self.values, &other.values), baselines: mean(&self.baselines, &other.baselines) }
    }
}

/// The objectives of one search.
#[derive(Debug, Clone, PartialEq)]
pub struct Objectives(Vec<Scale>);

impl Objectives {
    /// The objectives of a search.
    pub fn new(spec: &SearchSpec) -> Self {
        let scale = |objective: &evocache_proto::domain::Objective| Scale {
            metric: objective.metric.clone(),
            direction: objective.direction,
            bound: objective.bound,
            kind: match objective.metric.as_str() {
                "cache_bytes" => Kind::CacheBytes,
                "cache_hit_rate" => Kind::HitRate,
                name if builtin_direction(name).is_some() => Kind::Cost,
                _ => Kind::Quality,
            },
        };
        Self(spec.objectives.iter().map(scale).collect())
    }

    /// How many objectives.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none; a checked specification has at least two.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The score of a measurement of a schedule with this cache hit rate.
    pub fn score(&self, measurement: &Measurement, cache_hit_rate: f64) -> Result<Score, ScoreError> {
        Ok(self.judge(&self.observe(measurement, cache_hit_rate)?))
    }

    /// What a measurement says of each objective; only finite numbers.
    pub fn observe(&self, measurement: &Measurement, cache_hit_rate: f64) -> Result<Observed, ScoreError> {
        let mut observed = Observed { values: [0.0; MAX_OBJECTIVES], baselines: [0.0; MAX_OBJECTIVES] };
        for (i, scale) in self.0.iter().enumerate().take(MAX_OBJECTIVES) {
            let value = measurement
                .value(&scale.metric, cache_hit_rate)
                .ok_or_else(|| ScoreError::Missing(scale.metric.clone()))?;
            let baseline = scale.baseline(measurement);
            let loss = scale.loss(value, baseline);
            if let Some(&bad) = [value, loss].iter().find(|v| !v.is_finite()) {
                return Err(ScoreError::NotFinite { metric: scale.metric.clone(), value: bad });
            }
            (observed.values[i], observed.baselines[i]) = (value, baseline);
        }
        Ok(observed)
    }

    /// The same with another latency ratio, where latency is an objective; in time it is that ratio of `uncached_us`, if
    /// that is known.
    pub fn with_latency_ratio(&self, observed: &Observed, ratio: f64, uncached_us: Option<f64>) -> Observed {
        let mut observed = *observed;
        for (i, scale) in self.0.iter().enumerate().take(MAX_OBJECTIVES) {
            match scale.metric.as_str() {
                "latency_ratio" => observed.values[i] = ratio,
                "latency_us" => {
                    observed.baselines[i] = uncached_us.unwrap_or(observed.baselines[i]);
                    observed.values[i] = ratio * observed.baselines[i];
                }
                _ => {}
            }
        }
        observed
    }

    /// Whether a latency in time is an objective.
    pub fn are_in_time(&self) -> bool {
        self.0.iter().any(|scale| scale.metric == "latency_us")
    }

    /// The same with another value of a quality metric beside another uncached one.
    pub fn with_quality(&self, observed: &Observed, metric: &str, value: f64, baseline: f64) -> Observed {
        let mut observed = *observed;
        if let Some(i) = self.0.iter().position(|s| s.kind == Kind::Quality && s.metric == metric) {
            (observed.values[i], observed.baselines[i]) = (value, baseline);
        }
        observed
    }

    /// The quality metrics among the objectives, each with its direction.
    pub fn qualities(&self) -> impl Iterator<Item = (&str, Direction)> {
        self.0.iter().filter(|s| s.kind == Kind::Quality).map(|s| (s.metric.as_str(), s.direction))
    }

    /// The share kept of the first quality metric's uncached value; `None` if that value is 0.
    pub fn quality_ratio(&self, observed: &Observed) -> Option<f64> {
        let i = self.0.iter().position(|s| s.kind == Kind::Quality)?;
        Kept::new(self.0[i].direction, observed.values[i], observed.baselines[i]).share()
    }

    /// The score of what was observed.
    pub fn judge(&self, observed: &Observed) -> Score {
        let scaled = || self.0.iter().enumerate().take(MAX_OBJECTIVES).map(|(i, scale)| (scale, observed.values[i], i));
        Score {
            values: scaled().map(|(scale, value, _)| scale.minimised(value)).collect(),
            violation: scaled().map(|(scale, value, _)| scale.violation(value)).sum(),
            losses: scaled().map(|(scale, value, i)| scale.loss(value, observed.baselines[i])).collect(),
        }
    }
}

impl Scale {
    fn minimised(&self, value: f64) -> f64 {
        match self.direction {
            Direction::Minimize => value,
            Direction::Maximize => -value,
        }
    }

    /// What the uncached run has.
    fn baseline(&self, measurement: &Measurement) -> f64 {
        match self.metric.as_str() {
            "latency_us" => measurement.baseline_latency(),
            "macs" => measurement.baseline_macs as f64,
            "latency_ratio" | "macs_ratio" => 1.0,
            "cache_bytes" | "cache_hit_rate" => 0.0,
            declared => measurement.metric(declared).map_or(0.0, |m| m.baseline_mean),
        }
    }

    fn violation(&self, value: f64) -> f64 {
        let excess = self.bound.map_or(0.0, |bound| {
            (self.minimised(value) - self.minimised(bound)) / if bound == 0.0 { 1.0 } else { bound.abs() }
        });
        excess.max(0.0)
    }

    fn loss(&self, value: f64, baseline: f64) -> f64 {
        if self.kind == Kind::CacheBytes && self.bound.is_none() {
            return value.ln_1p() / CACHE_REFERENCE_BYTES.ln_1p();
        }
        let (ideal, reference) = match self.kind {
            Kind::Cost | Kind::CacheBytes => (0.0, baseline),
            Kind::HitRate => (-1.0, 0.0),
            Kind::Quality => {
                let ideal = self.minimised(baseline);
                let room = if baseline > 0.0 {
                    baseline
                } else if self.direction == Direction::Minimize {
                    1.0
                } else {
                    baseline.abs().max(1.0)
                };
                (ideal, ideal + room)
            }
        };
        let value = self.minimised(value);
        let reference = self.bound.map_or(reference, |bound| self.minimised(bound));
        if reference > ideal {
            (value - ideal) / (reference - ideal)
        } else {
            1.0 + (value - reference) / if reference == 0.0 { 1.0 } else { reference.abs() }
        }
    }
}

#[cfg(test)]
#[path = "objective_tests.rs"]
mod tests;
