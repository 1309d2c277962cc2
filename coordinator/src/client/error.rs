//! Why a call fails, in words for people, and the way out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use evocache_net::channel::AddressError;
use evocache_proto::text::plain;
use evocache_proto::wire::Reason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request.
    pub field: String,
    /// What is wrong with the field.
    pub problem: String,
}

/// The kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such search or worker, or no schedule that satisfies the constraint.
    NotFound,
    /// The request is wrong, whatever the state.
    Invalid,
    /// The id is in use.
    AlreadyExists,
    /// The request does not fit the present state.
    Precondition,
    /// A queue is full, or a limit is exceeded.
    Exhausted,
    /// Anything else.
    Other,
}

/// A request that the coordinator refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The call.
    pub call: &'static str,
    /// The kind.
    pub kind: ErrorKind,
    /// The coordinator's message.
    pub message: String,
    /// The wrong fields, if there are any.
    pub violations: Vec<Violation>,
    /// The machine-readable reason, such as `NO_SCHEDULE`; may be empty.
    pub reason: String,
    /// Facts that come with the reason, such as the nearest miss.
    pub facts: BTreeMap<String, String>,
    /// The delay after which the coordinator suggests a retry.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // If the message only joins the violations in one line, separate lines are easier to read.
        let told = |v: &Violation| self.message.contains(&v.problem);
        if !self.violations.is_empty() && self.violations.iter().all(told) {
            f.write_str("the coordinator refuses these fields:")?;
        } else {
            f.write_str(&self.message)?;
        }
        for violation in &self.violations {
            write!(f, "\n  {}: {}", violation.field, violation.problem)?;
        }
        for (name, value) in &self.facts {
            // Facts in the message are not repeated; a miss is described in the message with rounded numbers.
            if self.reason != Reason::NoSchedule.as_str() && !self.message.contains(value.as_str()) {
                write!(f, "\n  {}: {value}", name.replace('_', " "))?;
            }
        }
        Ok(())
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The address is malformed, or the certificates or the token do not fit it.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nothing listens at the address, or the connection broke.
    #[error("coordinator at {url} is not reachable: {problem}")]
    Unreachable {
        /// The coordinator's address.
        url: String,
        /// The innermost cause.
        problem: String,
    },
    /// The coordinator is reachable but cannot answer now.
    #[error("coordinator at {url} is unavailable: {problem}")]
    Unavailable {
        /// The coordinator's address.
        url: String,
        /// Its message.
        problem: String,
        /// The delay after which it suggests a retry.
        retry_after: Option<Duration>,
    },
    /// No answer in time.
    #[error("{call}: no answer from {url} within {} s", .deadline.as_secs_f64())]
    Deadline {
        /// The call.
        call: &'static str,
        /// The coordinator's address.
        url: String,
        /// The time limit.
        deadline: Duration,
    },
    /// The coordinator refused the call.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The answer is invalid.
    #[error("{call}: the answer is invalid: {problem}")]
    Malformed {
        /// The call.
        call: &'static str,
        /// What is wrong with the answer.
        problem: String,
    },
}

/// Whether the call got no answer: the client noticed (then the status has a source), or the connection ended during the
/// call.
#[cfg(feature = "server")]
pub(crate) fn is_unanswered(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Internal => std::error::Error::source(status).is_some(),
        // A coordinator never answers with this code.
        code => code == Code::Cancelled,
    }
}

impl ClientError {
    pub(super) fn unreachable(url: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Unreachable { url: url.to_owned(), problem: innermost(error) }
    }

    pub(super) fn from_status(call: &'static str, url: &str, deadline: Duration, status: &Status) -> Self {
        let url = url.to_owned();
        let details = status.get_error_details();
        // The message may quote text from others.
        let words = plain(status.message()).into_owned();
        let retry_after = details.retry_info().and_then(|r| r.retry_delay);
        let source = std::error::Error::source(status);
        match (status.code(), source) {
            // No answer, see `is_unanswered`.
            (Code::Unavailable | Code::Unknown | Code::Internal, Some(source)) => Self::unreachable(&url, source),
            (Code::Unavailable, None) if details.error_info().is_none() && is_transport_text(&words) => {
                Self::Unreachable { url, problem: words }
            }
            (Code::Unavailable, None) => Self::Unavailable { url, problem: words, retry_after },
            (Code::DeadlineExceeded, _) => Self::Deadline { call, url, deadline },
            (Code::Cancelled, _) if words.to_lowercase().contains("timeout") => Self::Deadline { call, url, deadline },
            // A coordinator never answers with this code: the connection ended during the call.
            (Code::Cancelled, _) => Self::Unreachable { url, problem: words.to_lowercase() },
            (code, _) => {
                let violations = details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or_default();
                let info = details.error_info();
                Self::Refused(Box::new(Refusal {
                    call,
                    kind: match code {
                        Code::NotFound => ErrorKind::NotFound,
                        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
                        Code::AlreadyExists => ErrorKind::AlreadyExists,
                        Code::FailedPrecondition | Code::Aborted => ErrorKind::Precondition,
                        Code::ResourceExhausted => ErrorKind::Exhausted,
                        _ => ErrorKind::Other,
                    },
                    message: match (words.as_str(), code) {
                        ("", code) => format!("{call}: {}", code.description()),
                        (text, Code::Unimplemented) => {
                            format!("{call}: the coordinator does not know this call: {text}")
                        }
                        (text, _) => text.to_owned(),
                    },
                    violations: violations
                        .iter()
                        .map(|v| Violation { field: plain(&v.field).into(), problem: plain(&v.description).into() })
                        .collect(),
                    reason: info.map(|i| i.reason.clone()).unwrap_or_default(),
                    facts: info
                        .map(|i| i.metadata.iter().map(|(k, v)| (plain(k).into(), plain(v).into())).collect())
                        .unwrap_or_default(),
                    retry_after,
                }))
            }
        }
    }

    /// The machine-readable reason of a refusal, such as `SEARCH_NOT_FOUND`; empty for anything else.
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.reason,
            _ => "",
        }
    }

    /// The kind of refusal, if it is one.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused(refusal) => Some(refusal.kind),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            // A certificate that is not trusted stays so.
            Self::Unreachable { problem, .. } => tls_hint(problem).is_none() && !problem.contains(CANCELED),
            Self::Unavailable { .. } => true,
            // A refusal that may be retried says when.
            Self::Refused(refusal) => {
                matches!(refusal.kind, ErrorKind::Exhausted | ErrorKind::Precondition) && refusal.retry_after.is_some()
            }
            Self::Address(_) | Self::Deadline { .. } | Self::Malformed { .. } => false,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// The way out, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Address(AddressError::Url { .. }) => Some("an address looks like http://127.0.0.1:7447".into()),
            Self::Address(AddressError::Credentials(error)) => Some(error.hint().to_owned()),
            Self::Unreachable { problem, .. } if tls_hint(problem).is_some() => tls_hint(problem).map(str::to_owned),
            // Over plain HTTP/2 no certificate is requested.
            Self::Unreachable { problem, url } if has_hung_up(problem) => Some(match url.strip_prefix("http://") {
                Some(rest) => format!(
                    "the coordinator closed the connection: if it uses TLS, write https://{rest}, with --ca FILE for an \
                     authority of your own; otherwise it is stopping"
                ),
                None => "the coordinator closed the connection: it may require a certificate (--client-cert FILE --client-key \
                         FILE) or not trust yours, or it is stopping"
                    .into(),
            }),
            Self::Unreachable { url, problem } if url.starts_with("http:") && problem.contains("frame") => {
                Some("it does not use plain HTTP/2: if it has a certificate, write https:// and name the authority (--ca FILE)".into())
            }
            Self::Unreachable { .. } => Some(
                "start a coordinator with `evocache serve`, or name another one with --coordinator or \
                 EVOCACHE_COORDINATOR"
                    .into(),
            ),
            Self::Unavailable { .. } => Some("the coordinator may be stopping or starting; its log says why".into()),
            Self::Deadline { .. } => Some("the coordinator may be overloaded or hung; its log says more".into()),
            Self::Malformed { .. } => Some("client and coordinator may be of different versions".into()),
            Self::Refused(_) => None,
        }
    }
}

/// The way out of a TLS error, found by the lowercase text of the TLS library.
fn tls_hint(problem: &str) -> Option<&'static str> {
    let hints = [
        ("unknownissuer", "name the authority that signed the coordinator's certificate with --ca FILE"),
        ("badsignature", "name the authority that signed the coordinator's certificate with --ca FILE"),
        ("certificate expired", "the coordinator's certificate has expired: its operator must renew it"),
        ("notvalidforname", "use a name or an address in the URL that the coordinator's certificate contains"),
        ("not valid for name", "use a name or an address in the URL that the coordinator's certificate contains"),
        ("certificaterequired", "this coordinator requires a certificate: --client-cert FILE --client-key FILE"),
        ("unknownca", "the coordinator does not know the authority that signed the certificate of --client-cert"),
        ("received fatal alert", "the coordinator refuses the certificate of --client-cert, or requires one"),
        ("corrupt message", "the coordinator does not speak TLS: write http://, or start it with --tls-cert"),
    ];
    hints.iter().find(|(words, _)| problem.contains(words)).map(|(_, hint)| *hint)
}

/// The text of a call whose connection ended before the answer. The reason is lost, as it goes to the connection and not to
/// the call.
const CANCELED: &str = "operation was canceled";

/// Whether the connection was made and then closed by the other side.
fn has_hung_up(problem: &str) -> bool {
    [CANCELED, "broken pipe", "connection reset", "connection closed"].iter().any(|words| problem.contains(words))
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    // Without the number of "Connection refused (os error 111)".
    let text = inner.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    plain(text).to_lowercase()
}

fn is_transport_text(text: &str) -> bool {
    ["transport error", "tcp connect error", "connection refused", "error trying to connect", "dns error"]
        .iter()
        .any(|known| text.to_lowercase().contains(known))
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    fn error(status: &Status) -> ClientError {
        ClientError::from_status("CreateSearch", "http://h:1", Duration::from_secs(3), status)
    }

    #[test]
    fn every_wrong_field_becomes_a_line() {
        let violations = vec![
            FieldViolation::new("spec.sampling.steps[1]", "goes down"),
            FieldViolation::new("spec.budget", "is missing"),
        ];
        let details = ErrorDetails::with_bad_request(violations);
        let status = Status::with_error_details(Code::InvalidArgument, "invalid search specification", details);
        let error = error(&status);
        assert_eq!(error.kind(), Some(ErrorKind::Invalid));
        assert_eq!(
            error.to_string(),
            "invalid search specification\n  spec.sampling.steps[1]: goes down\n  spec.budget: is missing"
        );
        assert!(!error.is_transient());
    }

    #[test]
    fn the_nearest_miss_is_named_in_words_and_its_numbers_are_for_machines() {
        let facts = [("nearest_value", "0.7998135834932327"), ("nearest_candidate", "12")];
        let facts = facts.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let details = ErrorDetails::with_error_info(
            Reason::NoSchedule.as_str(),
            "evocache",
            facts.into_iter().collect::<std::collections::HashMap<_, _>>(),
        );
        let words = "no schedule has likeness >= 0.99; candidate 12 comes nearest, with likeness 0.7998";
        let error = error(&Status::with_error_details(Code::NotFound, words, details));
        assert_eq!((error.kind(), error.to_string().as_str()), (Some(ErrorKind::NotFound), words));
        let ClientError::Refused(refusal) = &error else { panic!("{error:?}") };
        assert_eq!(refusal.facts["nearest_value"], "0.7998135834932327");
    }

    #[test]
    fn a_deadline_is_a_deadline_on_both_sides() {
        for status in [Status::cancelled("Timeout expired"), Status::deadline_exceeded("late")] {
            assert!(matches!(error(&status), ClientError::Deadline { .. }), "{status:?}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_no_reason_to_try_again() {
        for words in ["invalid peer certificate: UnknownIssuer", "received fatal alert: CertificateRequired"] {
            let mut status = Status::unavailable("transport");
            status.set_source(std::sync::Arc::new(std::io::Error::other(words)));
            let error = error(&status);
            assert!(!error.is_transient() && error.hint().unwrap().contains("FILE"), "{error}");
        }
    }

    #[test]
    fn a_coordinator_that_is_gone_is_told_from_one_that_is_stopping() {
        let mut gone = Status::unavailable("transport");
        gone.set_source(std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
        assert!(matches!(error(&gone), ClientError::Unreachable { .. }));
        let stopping = error(&Status::unavailable("the coordinator is stopping"));
        assert!(matches!(stopping, ClientError::Unavailable { .. }));
        assert!(error(&gone).is_transient() && stopping.is_transient());
    }

    #[test]
    fn a_coordinator_with_a_certificate_is_not_taken_for_one_that_is_not_there() {
        let unreachable = |url: &str| ClientError::Unreachable {
            url: url.into(),
            problem: "connection error detected: frame with invalid size".into(),
        };
        assert!(unreachable("http://h:1").hint().unwrap().contains("https://"));
        assert!(!unreachable("https://h:1").hint().unwrap().contains("plain HTTP"));
    }
}
