//! Conditions: the constraints of a question in terms of one search.

use std::fmt;

use evocache_proto::domain::{Constraint, Direction, MetricDeclaration, Operator, SearchSpec, builtin_direction};

/// The uncached latency divided by a schedule's: a metric in questions only, beside the built-in ones.
pub const SPEEDUP: &str = "speedup";

/// A limit on one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// A built-in metric, [`SPEEDUP`], or a metric that the workers declare.
    pub metric: String,
    /// The side of `value` that is allowed.
    pub operator: Operator,
    /// The limit, in the metric's unit.
    pub value: f64,
    /// Whether `value` is a share of the uncached quality instead.
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

    /// The value or better.
    pub fn as_good_as(metric: &str, direction: Direction, value: f64) -> Self {
        match direction {
            Direction::Minimize => Self::at_most(metric, value),
            Direction::Maximize => Self::at_least(metric, value),
        }
    }

    /// At least this share of the uncached quality.
    pub fn keeps(metric: &str, share: f64) -> Self {
        Self { of_uncached: true, ..Self::at_least(metric, share) }
    }

    /// Resolves a constraint for a search whose workers declare these metrics.
    pub(super) fn resolve(constraint: &Constraint, spec: &SearchSpec, declared: &[MetricDeclaration]) -> Self {
        let quality = spec.quality().map_or("", |quality| quality.metric.as_str());
        let named = |name: &str| (if name.is_empty() { quality } else { name }).to_owned();
        let as_good_as = |metric: &str, value| {
            let direction = direction(metric, spec, declared).unwrap_or(Direction::Maximize);
            Self::as_good_as(metric, direction, value)
        };
        match constraint {
            Constraint::MaxLatencyRatio(ratio) => Self::at_most("latency_ratio", *ratio),
            Constraint::MinSpeedup(speedup) => Self::at_least(SPEEDUP, *speedup),
            Constraint::MaxLatency(latency) => Self::at_most("latency_us", latency.as_secs_f64() * 1e6),
            Constraint::MinQuality(value) => as_good_as(quality, *value),
            Constraint::MinQualityRatio(share) => Self::keeps(quality, *share),
            Constraint::MaxCacheBytes(bytes) => Self::at_most("cache_bytes", *bytes as f64),
            Constraint::AsGoodAs { name, value } => as_good_as(&named(name), *value),
            Constraint::Metric { name, operator, value, of_uncached } => {
                let metric = named(name);
                // These are shares of the uncached run's value already.
                let is_share = matches!(metric.as_str(), "latency_ratio" | "macs_ratio" | "cache_hit_rate");
                Self { metric, operator: *operator, value: *value, of_uncached: *of_uncached && !is_share }
            }
        }
    }

    /// How far a value misses the condition, relative to the limit; not positive if it meets the condition.
    pub(super) fn excess(&self, value: f64) -> f64 {
        let excess = match self.operator {
            Operator::AtLeast => self.value - value,
            Operator::AtMost => value - self.value,
        };
        if excess <= 0.0 || self.value == 0.0 { excess } else { excess / self.value.abs() }
    }

    /// A value of the condition's metric, with its unit.
    pub(super) fn show(&self, value: f64) -> String {
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

    /// The metric's name for people.
    pub(super) fn name(&self) -> &str {
        match self.metric.as_str() {
            SPEEDUP => "speed-up",
            "latency_us" => "latency",
            "cache_bytes" => "cache",
            other => other,
        }
    }
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

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The bounds of a search's objectives as conditions.
pub(super) fn bounds(spec: &SearchSpec) -> Vec<Condition> {
    let bounded = spec.objectives.iter().filter_map(|objective| Some((objective, objective.bound?)));
    bounded.map(|(objective, bound)| Condition::as_good_as(&objective.metric, objective.direction, bound)).collect()
}

/// In which direction a metric is better.
fn direction(metric: &str, spec: &SearchSpec, declared: &[MetricDeclaration]) -> Option<Direction> {
    let of_objective = spec.objectives.iter().find(|objective| objective.metric == metric).map(|o| o.direction);
    let of_declared = || declared.iter().find(|m| m.name == metric).map(|m| m.direction);
    of_objective.or_else(of_declared).or_else(|| builtin_direction(metric))
}
