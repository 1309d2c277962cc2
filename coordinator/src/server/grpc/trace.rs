//! A span for each admitted call, if traces are collected.
//!
//! The caller's span in the metadata, if there is one, is the parent; the answer's metadata carry the call's own, so that
//! the work of a worker on a lease joins the trace in which the lease was granted. A span has the call, its code and its
//! subject: ids, and nothing else of a message.

use std::task::{Context, Poll};

use evocache_net::telemetry;
use tonic::Status;
use tonic::codegen::{BoxFuture, Service, http};
use tower_layer::Layer;
use tracing::{Instrument, Span, field};

use crate::server::gate::Caller;

/// Makes spans.
#[derive(Debug, Clone)]
pub struct Spans;

impl<S> Layer<S> for Spans {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner }
    }
}

/// Services whose calls have spans.
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
}

fn span(path: &str) -> Span {
    let name = path.trim_start_matches('/');
    let (service, method) = name.split_once('/').unwrap_or((name, ""));
    tracing::info_span!(
        target: telemetry::TARGET,
        "call",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = method,
        rpc.grpc.status_code = field::Empty,
        evocache.subject = field::Empty,
    )
}

impl<S, A, B> Service<http::Request<A>> for Traced<S>
where
    S: Service<http::Request<A>, Response = http::Response<B>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        let span = span(request.uri().path());
        if span.is_disabled() {
            return Box::pin(self.inner.call(request));
        }
        telemetry::adopt(&span, &telemetry::remote(request.headers()));
        let caller = request.extensions().get::<Caller>().cloned();
        let answer = span.in_scope(|| self.inner.call(request));
        Box::pin(async move {
            let mut answer = answer.instrument(span.clone()).await?;
            let code = Status::from_header_map(answer.headers()).map_or(tonic::Code::Ok, |status| status.code());
            span.record("rpc.grpc.status_code", code as i32);
            // By OpenTelemetry's convention, a mistake of the caller is not an error of the server.
            if matches!(code, tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Unavailable) {
                span.record("otel.status_code", "ERROR");
            }
            if let Some(subject) = caller.as_ref().and_then(Caller::subject) {
                span.record("evocache.subject", subject);
            }
            telemetry::inject(&span, answer.headers_mut());
            Ok(answer)
        })
    }
}
