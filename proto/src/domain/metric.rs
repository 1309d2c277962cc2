//! Metrics and what a worker declares about itself. No metric but the built-in measurements has a meaning here.

use std::collections::BTreeMap;

use super::limits::{MAX_LABELS, MAX_METRICS, MAX_NAME};
use super::problems::shown;
use super::{CostModel, CostModelError, Layout};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Smaller is better.
    Minimize,
    /// Larger is better.
    Maximize,
}

/// Measurements that every evaluation has, whatever the worker: name, direction, unit.
///
/// - `latency_us`: microseconds per image of the fastest batch, whole pipeline, text encoding excluded;
/// - `latency_ratio`: that over the fastest of the uncached batches interleaved on the same device;
/// - `macs`, `macs_ratio`: multiply-accumulates per image, and over the uncached run's;
/// - `cache_bytes`: peak bytes of stored outputs per image;
/// - `cache_hit_rate`: share of decisions served from the cache.
pub const BUILTIN_METRICS: [(&str, Direction, &str); 6] = [
    ("latency_us", Direction::Minimize, "us"),
    ("latency_ratio", Direction::Minimize, "1"),
    ("macs", Direction::Minimize, "1"),
    ("macs_ratio", Direction::Minimize, "1"),
    ("cache_bytes", Direction::Minimize, "By"),
    ("cache_hit_rate", Direction::Maximize, "1"),
];

/// The direction of a built-in metric, or `None` for any other name.
pub fn builtin_direction(name: &str) -> Option<Direction> {
    BUILTIN_METRICS.iter().find(|(builtin, ..)| *builtin == name).map(|&(_, direction, _)| direction)
}

/// A quality metric that a worker can measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDeclaration {
    /// Name, such as `clip_score`: `[a-z][a-z0-9_]*`, none of [`BUILTIN_METRICS`].
    pub name: String,
    /// Which way is better.
    pub direction: Direction,
    /// Unit as in UCUM: `1`, `dB`, …
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
        /// Which field.
        field: &'static str,
    },
    /// A metric name that is malformed, built in, or given twice.
    #[error("metric '{0}' must be a-z, 0-9 and '_', start with a letter, be declared once, and be no built-in metric")]
    Metric(String),
    /// Too many labels, or one that is malformed.
    #[error("at most {MAX_LABELS} labels, with keys of 1 to 63 bytes and values of at most 255")]
    Labels,
    /// A unit that is none.
    #[error("the unit of metric '{0}' has more than 64 bytes")]
    Unit(String),
    /// More metrics than [`MAX_METRICS`].
    #[error("a worker declares at most {MAX_METRICS} metrics, not {0}")]
    Metrics(usize),
    /// No metric at all: then there is nothing to search for.
    #[error("a worker declares at least one quality metric")]
    NoMetric,
    /// No decision but compute.
    #[error("a worker can at least reuse an output; 'forecast' is optional, reuse is not")]
    NoReuse,
    /// The cost model does not fit the layout.
    #[error(transparent)]
    Cost(#[from] CostModelError),
}

/// What a worker says about itself when it registers.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Name of the worker for people, such as `gpu-node-3/0`.
    pub name: String,
    /// The device, such as `NVIDIA H100 80GB HBM3` or `cpu (1 thread)`.
    pub device: String,
    /// The software that measures, with its version.
    pub software: String,
    /// Name of the loaded model; a search asks for a model by it.
    pub model: String,
    /// Digest of weights and configuration: two workers with one fingerprint run the same model.
    pub fingerprint: String,
    /// What can be cached.
    pub layout: Layout,
    /// Whether the worker can run `Decision::Forecast`.
    pub forecast: bool,
    /// Whether it can measure a [`Profile`](super::Profile).
    pub profiles: bool,
    /// Whether it samples on a [`Grid`](super::Grid) that it is told.
    pub grids: bool,
    /// The quality metrics that it measures.
    pub metrics: Vec<MetricDeclaration>,
    /// Memory of the device in bytes; 0: unknown.
    pub memory_bytes: u64,
    /// What operators say about the worker, for searches to ask for.
    pub labels: BTreeMap<String, String>,
    /// Costs under the model's native resolution with guidance, if the worker knows them.
    pub cost: Option<CostModel>,
}

impl Declaration {
    /// Checks names and sizes.
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
