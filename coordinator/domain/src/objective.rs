//! Turns measurements into scores under a search's objectives.
//!
//! **Values** are the objectives in their own units, negated where larger is better. Dominance compares them.
//!
//! **Violation** is the sum over the bounds of how far each is exceeded, divided by the bound's magnitude.
//!
//! **Losses** are the units of hypervolume: `(value - ideal) / (reference - ideal)`, so the ideal is 0 and the
//! reference point is 1 in every objective. A candidate of better quality than the uncached run has a loss below 0; the
//! hypervolume counts it as 0 and so stays in `[0, 1]`. The ideal and the reference of an objective are:
//!
//! | objective | ideal | reference | with a bound |
//! |---|---|---|---|
//! | `latency_us`, `latency_ratio`, `macs`, `macs_ratio` | 0 | the uncached run's | the bound |
//! | `cache_hit_rate` | 1 | 0 | the bound |
//! | `cache_bytes` | 0 | 1 TiB, on a logarithmic scale | the bound, on a linear scale |
//! | a maximized quality metric | the uncached run's | 0 | the bound |
//! | a minimized quality metric | the uncached run's | twice the uncached run's | the bound |
//!
//! - The uncached run caches nothing and so gives no scale for `cache_bytes`; a logarithmic scale needs none.
//! - A metric such as PSNR or LPIPS to the uncached picture has its best value as the baseline (a cap, or 0). A
//!   maximized one is measured from 0 like any other. A minimized one with a baseline of 0 has the reference 1.
//! - If the baseline of a maximized metric is not positive (a reward may be negative), the reference lies below it by
//!   the baseline's magnitude, and at least by 1.
//! - If the uncached run itself breaks the bound, the reference is not above the ideal. The loss is then 1 at the bound
//!   and grows by 1 per magnitude of the bound.
//! - The uncached run is that of the same measurement, so a worker on another device does not shift losses.
//!
//! **Invariant:** no score contains NaN. `Measurement::check` rejects it, and values that are not finite have no score.

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
    /// An objective or its loss is NaN or infinite, and cannot be compared.
    #[error("objective '{metric}' is {value}")]
    NotFinite {
        /// The objective.
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

/// The objectives of one schedule in their own units, each with the uncached run's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    values: [f64; MAX_OBJECTIVES],
    baselines: [f64; MAX_OBJECTIVES],
}

impl Observed {
    /// The mean of `self`, which is the mean of `count` observations, and one more observation.
    pub fn averaged_with(&self, count: u32, other: &Self) -> Self {
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

    /// The number of objectives.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no objectives; a validated specification has at least two.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The score of a measurement of a schedule with this cache hit rate.
    pub fn score(&self, measurement: &Measurement, cache_hit_rate: f64) -> Result<Score, ScoreError> {
        Ok(self.judge(&self.observe(measurement, cache_hit_rate)?))
    }

    /// The objectives in a measurement. An error if one is missing or not finite.
    pub fn observe(&self, measurement: &Measurement, cache_hit_rate: f64) -> Result<Observed, ScoreError> {
        let mut observed = Observed { values: [0.0; MAX_OBJECTIVES], baselines: [0.0; MAX_OBJECTIVES] };
        for (i, scale) in self.0.iter().enumerate().take(MAX_OBJECTIVES) {
            (observed.values[i], observed.baselines[i]) = scale.observe(measurement, cache_hit_rate)?;
        }
        Ok(observed)
    }

    /// Whether [`observe`](Self::observe) accepts a measurement, without its result.
    pub fn check(&self, measurement: &Measurement, cache_hit_rate: f64) -> Result<(), ScoreError> {
        let mut scales = self.0.iter().take(MAX_OBJECTIVES);
        scales.try_for_each(|scale| scale.observe(measurement, cache_hit_rate).map(drop))
    }

    /// Replaces the latency ratio, if latency is an objective. `latency_us` becomes `ratio` times `uncached_us`, or
    /// times the observed uncached latency if `uncached_us` is `None`.
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

    /// Whether `latency_us` is an objective.
    pub fn include_latency_us(&self) -> bool {
        self.0.iter().any(|scale| scale.metric == "latency_us")
    }

    /// Replaces the value of a quality metric and the uncached run's value.
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

    /// The quality ratio of the first quality metric; `None` without such a metric, or if the ratio is undefined.
    pub fn quality_ratio(&self, observed: &Observed) -> Option<f64> {
        let i = self.0.iter().position(|s| s.kind == Kind::Quality)?;
        Kept::new(self.0[i].direction, observed.values[i], observed.baselines[i]).share()
    }

    /// The score of an observation.
    pub fn judge(&self, observed: &Observed) -> Score {
        let scaled = || self.0.iter().enumerate().take(MAX_OBJECTIVES).map(|(i, scale)| (scale, observed.values[i], i));
        Score {
            values: scaled().map(|(scale, value, _)| scale.minimized(value)).collect(),
            violation: scaled().map(|(scale, value, _)| scale.violation(value)).sum(),
            losses: scaled().map(|(scale, value, i)| scale.loss(value, observed.baselines[i])).collect(),
        }
    }
}

impl Scale {
    /// The objective's value in a measurement, and the uncached run's.
    fn observe(&self, measurement: &Measurement, cache_hit_rate: f64) -> Result<(f64, f64), ScoreError> {
        let value =
            measurement.value(&self.metric, cache_hit_rate).ok_or_else(|| ScoreError::Missing(self.metric.clone()))?;
        let baseline = self.baseline(measurement);
        let loss = self.loss(value, baseline);
        match [value, loss].into_iter().find(|v| !v.is_finite()) {
            Some(value) => Err(ScoreError::NotFinite { metric: self.metric.clone(), value }),
            None => Ok((value, baseline)),
        }
    }

    fn minimized(&self, value: f64) -> f64 {
        match self.direction {
            Direction::Minimize => value,
            Direction::Maximize => -value,
        }
    }

    /// The uncached run's value.
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
            (self.minimized(value) - self.minimized(bound)) / if bound == 0.0 { 1.0 } else { bound.abs() }
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
                let ideal = self.minimized(baseline);
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
        let value = self.minimized(value);
        let reference = self.bound.map_or(reference, |bound| self.minimized(bound));
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
