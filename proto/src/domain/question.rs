//! What a caller asks for: the best schedule under constraints.
//!
//! Which metric "quality" means, and in which direction a metric is better, depends on the search; `evocache-domain`
//! resolves a question for a search and answers it.

use std::time::Duration;

/// Which side of a value a constraint allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value or more.
    AtLeast,
    /// The value or less.
    AtMost,
}

/// What a schedule must satisfy.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// The largest latency ratio.
    MaxLatencyRatio(f64),
    /// The least speed-up: uncached latency divided by latency.
    MinSpeedup(f64),
    /// The largest latency per image.
    MaxLatency(Duration),
    /// The worst value of the search's quality metric: the least, or the largest if it is minimized.
    MinQuality(f64),
    /// The least share to keep of the uncached quality, as [`Kept::Share`](super::Kept::Share).
    MinQualityRatio(f64),
    /// The largest peak size of cached outputs, in bytes per image.
    MaxCacheBytes(u64),
    /// A limit on any metric.
    Metric {
        /// The metric's name; empty for the search's quality metric.
        name: String,
        /// The side of `value` that is allowed.
        operator: Operator,
        /// The limit, in the metric's unit.
        value: f64,
        /// Whether `value` is a share of the uncached quality instead.
        of_uncached: bool,
    },
    /// A value of any metric or a better one.
    AsGoodAs {
        /// The metric's name; empty for the search's quality metric.
        name: String,
        /// The worst allowed value, in the metric's unit.
        value: f64,
    },
}

/// What to prefer among the schedules that satisfy all constraints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preference {
    /// The smallest latency ratio.
    Fastest,
    /// The best quality.
    BestQuality,
    /// The knee of the front: the member farthest from the line between its fastest and its best member.
    Knee,
}

/// A question for the best schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Constraints that must all hold.
    pub constraints: Vec<Constraint>,
    /// Which of the remaining schedules to choose.
    pub preference: Preference,
    /// Whether the answer may violate the bounds of the search's objectives.
    pub ignore_bounds: bool,
}

impl Question {
    /// A question within the bounds of the search's objectives.
    pub fn new(constraints: Vec<Constraint>, preference: Preference) -> Self {
        Self { constraints, preference, ignore_bounds: false }
    }
}
