//! Metrics, and what a worker declares when it registers.
//!
//! **Invariant:** knows no metric by name except the built-in ones.

use std::collections::BTreeMap;

use super::limits::{MAX_LABELS, MAX_METRICS, MAX_NAME};
use super::problems::shown;
use super::{CostModel, CostModelError, Layout};

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Smaller is better.
    Minimize,
    /// Larger is better.
    Maximize,
}

/// The metrics that every evaluation has: name, direction, unit.
///
/// - `latency_us`: microseconds per image of the fastest batch, for the whole pipeline without text encoding;
/// - `latency_ratio`: `latency_us` over that of the uncached batches interleaved on the same device;
/// - `macs`, `macs_ratio`: multiply-accumulates per image, and their ratio to those of the uncached run;
/// - `cache_bytes`: peak bytes of stored outputs per image;
/// - `cache_hit_rate`: share of decisions that the cache serves.
pub const BUILTIN_METRICS: [(&str, Direction, &str); 6] = [
    ("latency_us", Direction::Minimize, "us"),
    ("latency_ratio", Direction::Minimize, "1"),
    ("macs", Direction::Minimize, "1"),
    ("macs_ratio", Direction::Minimize, "1"),
    ("cache_bytes", Direction::Minimize, "By"),
    ("cache_hit_rate", Direction::Maximize, "1"),
];

/// The direction of a built-in metric; `None` for any other name.
pub fn builtin_direction(name: &str) -> Option<Direction> {
    BUILTIN_METRICS.iter().find(|(builtin, ..)| *builtin == name).map(|&(_, direction, _)| direction)
}

/// A quality metric that a worker can measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDeclaration {
    /// Name, such as `clip_score`: 1 to 64 characters of `[a-z][a-z0-9_]*`, not one of [`BUILTIN_METRICS`].
    pub name: String,
    /// Which values are better.
    pub direction: Direction,
    /// Unit in UCUM notation, such as `1` or `dB`; at most 64 bytes.
    pub unit: String,
    /// One line for people.
    pub description: String,
}

/// Why a declaration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclarationError {
    /// A text is empty or too long.
    #[error("'{field}' must have 1 to {MAX_NAME} characters")]
    Text {
        /// Name of the field.
        field: &'static str,
    },
    /// A metric name that is malformed, built in or declared twice.
    #[error("metric '{0}' must be 1 to 64 of a-z, 0-9 and '_', start with a letter, be unique and not be built in")]
    Metric(String),
    /// Too many labels, or a key or value of invalid length.
    #[error("at most {MAX_LABELS} labels, with keys of 1 to 63 bytes and values of at most 255")]
    Labels,
    /// A unit that is too long.
    #[error("the unit of metric '{0}' has more than 64 bytes")]
    Unit(String),
    /// More metrics than [`MAX_METRICS`].
    #[error("a worker may declare at most {MAX_METRICS} metrics, found {0}")]
    Metrics(usize),
    /// No quality metric, so there would be nothing to optimize.
    #[error("a worker must declare at least one quality metric")]
    NoMetric,
    /// A worker that can only compute.
    #[error("a worker must be able to reuse outputs; only forecasts are optional")]
    NoReuse,
    /// The cost model does not fit the layout.
    #[error(transparent)]
    Cost(#[from] CostModelError),
}

/// What a worker declares when it registers.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Name of the worker, for people, such as `gpu-node-3/0`.
    pub name: String,
    /// The device, such as `NVIDIA H100 80GB HBM3` or `cpu (1 thread)`.
    pub device: String,
    /// The software that measures, with its version.
    pub software: String,
    /// Name of the loaded model. The worker serves searches for this name.
    pub model: String,
    /// Digest of weights and configuration. Workers with the same fingerprint generate the same pictures.
    pub fingerprint: String,
    /// The cacheable modules.
    pub layout: Layout,
    /// Whether the worker can run [`Decision::Forecast`](super::Decision::Forecast).
    pub forecast: bool,
    /// Whether the worker can leave out passes of classifier-free guidance; see
    /// [`GuidanceDecision`](super::GuidanceDecision).
    pub guidance_decisions: bool,
    /// Whether the worker can measure a [`Profile`](super::Profile).
    pub profiles: bool,
    /// Whether the worker samples on the [`Grid`](super::Grid)s of a search.
    pub grids: bool,
    /// The quality metrics that the worker measures.
    pub metrics: Vec<MetricDeclaration>,
    /// Memory of the device in bytes; 0: unknown.
    pub memory_bytes: u64,
    /// Labels that searches can require.
    pub labels: BTreeMap<String, String>,
    /// Costs at the model's native resolution with guidance, if known.
    pub cost: Option<CostModel>,
}

impl Declaration {
    /// Checks names, counts and sizes.
    pub fn check(&self) -> Result<(), DeclarationError> {
        for (field, text) in [
            ("name", &self.name),
            ("device", &self.device),
            ("software", &self.software),
            ("model", &self.model),
            ("fingerprint", &self.fingerprint),
        ] {
            if text.is_empty() || text.chars().count() > MAX_NAME {
                return Err(DeclarationError::Text { field });
            }
        }
        if self.labels.len() > MAX_LABELS || !self.labels.iter().all(|(key, value)| is_label(key, value)) {
            return Err(DeclarationError::Labels);
        }
        if self.metrics.is_empty() {
            return Err(DeclarationError::NoMetric);
        }
        if self.metrics.len() > MAX_METRICS {
            return Err(DeclarationError::Metrics(self.metrics.len()));
        }
        for (i, metric) in self.metrics.iter().enumerate() {
            let twice = self.metrics[..i].iter().any(|other| other.name == metric.name);
            if twice || builtin_direction(&metric.name).is_some() || !is_metric_name(&metric.name) {
                return Err(DeclarationError::Metric(shown(&metric.name, 80)));
            }
            if metric.unit.len() > 64 {
                return Err(DeclarationError::Unit(metric.name.clone()));
            }
        }
        if let Some(cost) = &self.cost {
            cost.check(self.layout.slots())?;
        }
        Ok(())
    }
}

pub(super) fn is_label(key: &str, value: &str) -> bool {
    (1..=63).contains(&key.len()) && value.len() <= 255
}

pub(super) fn is_metric_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_may_not_redefine_what_latency_means() {
        let metric = |name: &str| MetricDeclaration {
            name: name.into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: String::new(),
        };
        let mut declaration = Declaration {
            name: "w".into(),
            device: "cpu".into(),
            software: "test 1".into(),
            model: "m".into(),
            fingerprint: "f".into(),
            layout: Layout::pixart(1).unwrap(),
            forecast: false,
            guidance_decisions: false,
            profiles: false,
            grids: true,
            memory_bytes: 0,
            labels: BTreeMap::new(),
            metrics: vec![metric("clip_score")],
            cost: None,
        };
        assert_eq!(declaration.check(), Ok(()));
        for bad in ["latency_us", "clip_score", "Clip", ""] {
            declaration.metrics.push(metric(bad));
            assert!(matches!(declaration.check(), Err(DeclarationError::Metric(_))), "{bad:?} must be refused");
            declaration.metrics.pop();
        }
        declaration.metrics = (0..90_000).map(|i| metric(&format!("m{i}"))).collect();
        assert_eq!(declaration.check(), Err(DeclarationError::Metrics(90_000)));
        declaration.metrics.clear();
        assert_eq!(declaration.check(), Err(DeclarationError::NoMetric));
    }
}
