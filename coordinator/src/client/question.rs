//! What a coordinator is asked: conditions on a schedule, and what to prefer. Absent: answers (`model.rs`).

use std::time::Duration;

/// Which side of a value is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The value or more.
    AtLeast,
    /// The value or less.
    AtMost,
}

/// What a schedule must satisfy.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Latency over the uncached latency, at most.
    MaxLatencyRatio(f64),
    /// Uncached latency over the latency, at least.
    MinSpeedup(f64),
    /// Per image, at most.
    MaxLatency(Duration),
    /// Of the search's quality metric, at least ("at most" if it is minimised).
    MinQuality(f64),
    /// The share to keep of the uncached quality.
    MinQualityRatio(f64),
    /// Peak bytes of stored outputs per image, at most.
    MaxCacheBytes(u64),
    /// Any metric.
    Metric {
        /// Its name.
        name: String,
        /// Which side.
        operator: Operator,
        /// Of which value.
        value: f64,
        /// Whether the value is the share kept of the uncached quality.
        of_uncached: bool,
    },
}

/// A question for the best schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// All of them hold.
    pub constraints: Vec<Constraint>,
    /// Which of those that are left.
    pub preference: Preference,
    /// Whether the objectives' bounds need not be kept.
    pub ignore_bounds: bool,
}

impl Question {
    /// Within the bounds.
    pub fn new(constraints: Vec<Constraint>, preference: Preference) -> Self {
        Self { constraints, preference, ignore_bounds: false }
    }
}

/// What to prefer among the schedules that satisfy the constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// The smallest latency ratio.
    Fastest,
    /// The best quality.
    BestQuality,
    /// The best bargain.
    Knee,
}
