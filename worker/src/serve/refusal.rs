//! Why a request gets no picture: an HTTP status and a body in the form of OpenAI's API, which its clients show.
//!
//! **Invariant:** a message names fields, numbers and limits. It never repeats a prompt.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::chance;

/// The retry is spread over this share of the wait, so that those who were refused together do not return together.
const JITTER: f64 = 0.5;
/// The longest wait that a refusal asks for.
const LONGEST: Duration = Duration::from_secs(600);

/// A refusal or a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    /// OpenAI's class of the error.
    class: &'static str,
    code: &'static str,
    /// The field or header that is at fault.
    param: Option<String>,
    message: String,
    /// In seconds.
    retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, class: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, class, code, param: None, message: message.into(), retry_after: None }
    }

    /// The request is wrong, and is wrong again when it is repeated.
    pub(super) fn invalid(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        let new = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", code, message);
        Self { param: Some(param.to_owned()), ..new }
    }

    /// Like [`invalid`](Self::invalid), for the request as a whole and with its own status.
    pub(super) fn unusable(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, "invalid_request_error", code, message)
    }

    /// There is too much work; the same request may succeed after `wait`.
    pub(super) fn busy(code: &'static str, message: impl Into<String>, wait: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", code, message).after(wait)
    }

    /// This user asks for too much; the same request may succeed after `wait`.
    pub(super) fn greedy(code: &'static str, message: impl Into<String>, wait: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", code, message).after(wait)
    }

    /// The model failed.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "generation_failed", message)
    }

    fn after(self, wait: Duration) -> Self {
        let seconds = wait.min(LONGEST).as_secs_f64().max(1.0);
        let spread = seconds * (1.0 + JITTER * chance::share());
        Self { retry_after: Some(spread.ceil() as u64), ..self }
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// What people read.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The machine-readable code.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "error": { "message": self.message, "type": self.class, "param": self.param, "code": self.code }
        });
        let kind = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.status, kind, format!("{body}\n")).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_refused_together_return_at_different_times_and_not_too_early() {
        let waits: Vec<u64> =
            (0..200).filter_map(|_| Refusal::busy("queue_full", "full", Duration::from_secs(20)).retry_after).collect();
        assert!(waits.len() == 200 && waits.iter().all(|wait| (20..=30).contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]));
        assert_eq!(Refusal::busy("x", "x", Duration::ZERO).retry_after.map(|wait| wait <= 2), Some(true));
    }
}
