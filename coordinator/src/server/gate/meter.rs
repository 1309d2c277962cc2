//! Counts calls by method and code, and measures the time until the answer begins.
//!
//! Does not count calls that the caller dropped, nor measure how long streams last.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tonic::codegen::{Service, http};
use tonic::{Code, Status};
use tower_layer::Layer;

use crate::engine::{Buckets, Histogram};

/// Methods that are counted by name. All others share one label: anybody can call any path, and labels stay.
const OURS: &str = "/evocache.v1.";

#[derive(Debug, Default)]
struct Method {
    codes: BTreeMap<i32, u64>,
    took: Histogram,
}

/// All calls so far. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<BTreeMap<String, Method>>>);

/// The calls of one method.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Such as `WorkerService/AcquireLease`, or `other`.
    pub method: String,
    /// The number of calls for each code.
    pub codes: Vec<(Code, u64)>,
    /// The times until the answers began.
    pub took: Buckets,
}

impl Calls {
    /// The calls of all methods, by name.
    pub fn read(&self) -> Vec<Call> {
        let methods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let call = |(name, method): (&String, &Method)| Call {
            method: name.clone(),
            codes: method.codes.iter().map(|(&code, &count)| (Code::from_i32(code), count)).collect(),
            took: method.took.read(),
        };
        methods.iter().map(call).collect()
    }

    fn count(&self, path: &str, code: Code, took: std::time::Duration) {
        let known = path.strip_prefix(OURS).filter(|_| code != Code::Unimplemented);
        let mut methods = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let method = methods.entry(known.unwrap_or("other").to_owned()).or_default();
        *method.codes.entry(code as i32).or_default() += 1;
        method.took.record(took);
    }
}

impl<S> Layer<S> for Calls {
    type Service = Metered<S>;

    fn layer(&self, inner: S) -> Metered<S> {
        Metered { inner, calls: self.clone() }
    }
}

/// A service with counted calls.
#[derive(Debug, Clone)]
pub struct Metered<S> {
    inner: S,
    calls: Calls,
}

impl<S, A, B> Service<http::Request<A>> for Metered<S>
where
    S: Service<http::Request<A>, Response = http::Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    #[expect(clippy::disallowed_methods, reason = "measures latency")]
    fn call(&mut self, request: http::Request<A>) -> Self::Future {
        let (calls, path) = (self.calls.clone(), request.uri().path().to_owned());
        let began = std::time::Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // A refusal has its code in the headers; without one, the answer has begun.
            let code = Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code());
            calls.count(&path, code, began.elapsed());
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_can_invent_labels() {
        let calls = Calls::default();
        calls.count("/evocache.v1.SearchService/GetFront", Code::Ok, Duration::ZERO);
        calls.count("/evocache.v1.SearchService/GetFront", Code::NotFound, Duration::ZERO);
        calls.count("/evocache.v1.SearchService/Frobnicate\"} 1", Code::Unimplemented, Duration::ZERO);
        calls.count("/grpc.health.v1.Health/Check", Code::Ok, Duration::ZERO);
        let read = calls.read();
        let names: Vec<_> = read.iter().map(|c| (c.method.as_str(), c.took.count)).collect();
        assert_eq!(names, [("SearchService/GetFront", 2), ("other", 2)]);
        assert_eq!(read[0].codes, [(Code::Ok, 1), (Code::NotFound, 1)]);
    }
}
