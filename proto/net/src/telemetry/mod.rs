//! Traces: spans to an OTLP collector, and their context in the metadata of calls (W3C `traceparent`).
//!
//! One evaluation is one trace across both processes: the answer that grants a lease carries the coordinator's span, and
//! the worker's evaluation and the calls that report it are its children.
//!
//! Without the feature `otlp` a collector is refused, and the other functions do nothing.
//!
//! **Invariant:** sends only spans with the target [`TARGET`], whose attributes are ids, methods and codes; never log
//! lines, prompts, tokens or measurements.

mod collector;
#[cfg(feature = "otlp")]
mod sent;
#[cfg(not(feature = "otlp"))]
mod unsent;

/// Whether this build can send spans.
pub const IS_BUILT: bool = cfg!(feature = "otlp");

pub use collector::{Collector, TARGET, TelemetryError};
#[cfg(feature = "otlp")]
pub use sent::{Remote, Telemetry, adopt, inject, remote};
#[cfg(not(feature = "otlp"))]
pub use unsent::{Remote, Telemetry, adopt, inject, remote};
