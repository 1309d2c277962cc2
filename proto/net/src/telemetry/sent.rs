//! Traces with the feature `otlp`.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::{Collector, TARGET, TelemetryError};

/// How long sending the last spans may take when a process ends.
const FLUSH: Duration = Duration::from_secs(3);

/// Sends spans in the background. If the collector is unreachable, spans are dropped once the queue is full.
pub struct Telemetry {
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// Sends spans over gRPC to a collector such as `http://127.0.0.1:4317`. Connects in the background; needs a
    /// runtime. Reads sampler and further attributes from the environment variables of the OpenTelemetry
    /// specification (`OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, …).
    ///
    /// # Errors
    ///
    /// When the address is malformed.
    pub fn start(collector: &Collector) -> Result<Self, TelemetryError> {
        let endpoint = &collector.endpoint;
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|e| TelemetryError::new(endpoint, &e))?;
        let version = opentelemetry::KeyValue::new("service.version", collector.version);
        let resource = Resource::builder().with_service_name(collector.service).with_attribute(version).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider })
    }

    /// The layer that passes a subscriber's spans on.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("evocache"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET))
    }

    /// Sends the remaining spans. Does not block the runtime, which drives the connection.
    pub async fn shutdown(self) {
        let sent = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = sent {
            tracing::warn!(%error, "cannot send the last spans");
        }
    }
}

/// The span of another process; may be empty.
#[derive(Debug, Clone, Default)]
pub struct Remote(Context);

/// The span in a message's metadata.
pub fn remote(headers: &HeaderMap) -> Remote {
    Remote(TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers)))
}

/// Makes a new span the child of another process's span, unless that is empty.
pub fn adopt(span: &Span, remote: &Remote) {
    if remote.0.span().span_context().is_valid() {
        // An error means that this span is not sent, so its parent does not matter.
        let _ = span.set_parent(remote.0.clone());
    }
}

/// Writes a span into a message's metadata, if the span is sent.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    let context = span.context();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut HeadersMut(headers));
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
