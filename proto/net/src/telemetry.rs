//! Traces: spans to an OTLP collector, and their context in the metadata of calls (W3C `traceparent`).
//!
//! Stands beside the contract because coordinator and worker must agree on it: the answer that brings a lease carries the
//! coordinator's span, the worker's evaluation is a child of it, and so are the calls that report it. One evaluation is
//! one trace, across both processes.
//!
//! Only spans of the target [`TARGET`] are sent, with the attributes that stand where they are made: ids, methods, codes.
//! Absent on purpose: the text of logs, prompts, tokens, measurements. Without the feature `otlp` there is the context's
//! type, which is empty, and functions that do nothing.

#[cfg(not(feature = "otlp"))]
use tonic::codegen::http::HeaderMap;

/// The target of spans that are sent.
pub const TARGET: &str = "trace";

#[cfg(feature = "otlp")]
pub use sent::{Remote, Telemetry, TelemetryError, adopt, inject, remote};

#[cfg(not(feature = "otlp"))]
pub use unsent::{Remote, adopt, inject, remote};

#[cfg(not(feature = "otlp"))]
mod unsent {
    use super::HeaderMap;

    /// The span of another process: none.
    #[derive(Debug, Clone, Default)]
    pub struct Remote;

    /// The span that metadata carry: none is looked for.
    pub fn remote(_: &HeaderMap) -> Remote {
        Remote
    }

    /// Makes a span the child of one of another process: there is none.
    pub fn adopt<S>(_: &S, _: &Remote) {}

    /// Writes the present span into metadata: nothing is written.
    pub fn inject<S>(_: &S, _: &mut HeaderMap) {}
}

#[cfg(feature = "otlp")]
mod sent {
    use std::time::Duration;

    use opentelemetry::Context;
    use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
    use opentelemetry::trace::{TraceContextExt, TracerProvider};
    use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::filter_fn;
    use tracing_subscriber::registry::LookupSpan;

    use super::TARGET;
    use crate::log::Collector;

    /// How long the last spans may take on their way when a process ends.
    const FLUSH: Duration = Duration::from_secs(3);

    /// Why there are no traces.
    #[derive(Debug, thiserror::Error)]
    #[error("no traces can be sent to '{endpoint}': {source}")]
    pub struct TelemetryError {
        endpoint: String,
        source: ExporterBuildError,
    }

    /// Sends spans in the background. A collector that is away is nobody's problem: spans that find no room are dropped.
    pub struct Telemetry {
        provider: SdkTracerProvider,
    }

    impl Telemetry {
        /// Sends spans to a collector such as `http://127.0.0.1:4317`, over gRPC. Connects by itself; needs a runtime.
        /// The sampler and more attributes come from the environment, as the OpenTelemetry specification names them
        /// (`OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, …).
        ///
        /// # Errors
        ///
        /// When the address is none.
        pub fn start(collector: &Collector) -> Result<Self, TelemetryError> {
            let endpoint = &collector.endpoint;
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
            let exporter = exporter.map_err(|source| TelemetryError { endpoint: endpoint.clone(), source })?;
            let version = opentelemetry::KeyValue::new("service.version", collector.version);
            let resource = Resource::builder().with_service_name(collector.service).with_attribute(version).build();
            let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
            Ok(Self { provider })
        }

        /// What a subscriber needs to hand its spans over.
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

        /// Sends what is left. The runtime goes on meanwhile: it carries the connection.
        pub async fn shutdown(self) {
            let sent = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH)).await;
            if let Ok(Err(error)) = sent {
                tracing::warn!(%error, "the last spans could not be sent");
            }
        }
    }

    /// The span of another process, or none.
    #[derive(Debug, Clone, Default)]
    pub struct Remote(Context);

    /// The span that a message's metadata carry.
    pub fn remote(headers: &HeaderMap) -> Remote {
        Remote(TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers)))
    }

    /// Makes a new span the child of one of another process, if there is one.
    pub fn adopt(span: &Span, remote: &Remote) {
        if remote.0.span().span_context().is_valid() {
            // An error means that this span is not sent, and then neither is its parent of interest.
            let _ = span.set_parent(remote.0.clone());
        }
    }

    /// Writes a span into a message's metadata, if it is one that is sent.
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
}
