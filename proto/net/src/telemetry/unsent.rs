//! Traces without the feature `otlp`: a collector is refused, and everything else does nothing.

use std::convert::Infallible;

use tonic::codegen::http::HeaderMap;
use tracing_subscriber::layer::Identity;

use super::{Collector, TelemetryError};

/// Sends spans: there is none in this build.
pub struct Telemetry(Infallible);

impl Telemetry {
    /// Refuses the collector.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn start(collector: &Collector) -> Result<Self, TelemetryError> {
        Err(TelemetryError::new(&collector.endpoint, &"this build has no traces"))
    }

    /// The layer that passes a subscriber's spans on.
    pub fn layer(&self) -> Identity {
        match self.0 {}
    }

    /// Sends the remaining spans.
    pub async fn shutdown(self) {
        match self.0 {}
    }
}

/// The span of another process: always empty without traces.
#[derive(Debug, Clone, Default)]
pub struct Remote;

/// The span in a message's metadata: ignored without traces.
pub fn remote(_: &HeaderMap) -> Remote {
    Remote
}

/// Makes a span the child of another process's span: does nothing without traces.
pub fn adopt<S>(_: &S, _: &Remote) {}

/// Writes a span into a message's metadata: does nothing without traces.
pub fn inject<S>(_: &S, _: &mut HeaderMap) {}
