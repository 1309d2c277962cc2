//! Where spans are sent, and why they cannot be.

use std::fmt::Display;

/// The `tracing` target of the spans that are sent.
pub const TARGET: &str = "trace";

/// A collector of spans, and how this process identifies itself to it.
#[derive(Debug, Clone)]
pub struct Collector {
    /// The address, such as `http://127.0.0.1:4317`.
    pub endpoint: String,
    /// The service's name.
    pub service: &'static str,
    /// The service's version.
    pub version: &'static str,
}

/// Why traces cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot send traces to '{endpoint}': {problem}")]
pub struct TelemetryError {
    endpoint: String,
    problem: String,
}

impl TelemetryError {
    pub(super) fn new(endpoint: &str, problem: &dyn Display) -> Self {
        Self { endpoint: endpoint.to_owned(), problem: problem.to_string() }
    }
}
