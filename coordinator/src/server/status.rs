//! The one place where a gRPC status is made: a [`Reason`] with its code, a text, and google.rpc details.
//!
//! Every text and fact is cut to a bound, so that no status grows with what a caller sent.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use evocache_proto::domain::{Problem, Problems, SpecError, shown};
use evocache_proto::wire::{Reason, WireError};
use sha2::{Digest, Sha256};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::limits;
use crate::engine::{Answer, LeaseKey, Refusal};

/// The domain of all reasons.
const DOMAIN: &str = "evocache";

/// Bytes of a status's text, and of each fact. gRPC sends both in headers, and clients accept 8 KiB of headers: the text
/// takes three times its length if it is not ASCII, and it is in the base64 of the details once more.
const TEXT_BYTES: usize = 1024;
const FACT_BYTES: usize = 200;

/// A status with a reason, a text, and facts for programs.
pub(super) fn with(reason: Reason, text: impl Display, facts: &[(&str, String)]) -> Status {
    let facts = facts.iter().map(|(name, fact)| ((*name).to_owned(), shown(fact, FACT_BYTES))).collect();
    make(reason, text, details(reason, facts))
}

/// A status for a call that may succeed after `wait`.
pub(super) fn retry(reason: Reason, text: impl Display, wait: Duration) -> Status {
    let mut details = details(reason, HashMap::new());
    details.set_retry_info(Some(wait));
    make(reason, text, details)
}

fn details(reason: Reason, facts: HashMap<String, String>) -> ErrorDetails {
    let mut details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, facts);
    if let Some(wait) = reason.retry_after() {
        details.set_retry_info(Some(wait));
    }
    details
}

fn make(reason: Reason, text: impl Display, details: ErrorDetails) -> Status {
    Status::with_error_details(reason.code(), shown(text, TEXT_BYTES), details)
}

/// A wrong field.
pub(super) fn invalid(field: &str, problem: impl Display) -> Status {
    violations(Problem::new(field, problem).into())
}

/// A message that is not a valid value.
pub(super) fn malformed(error: WireError) -> Status {
    violations(error.into())
}

/// A specification with wrong fields; their paths start at `spec`.
pub(super) fn spec(error: SpecError) -> Status {
    violations(error.0.within("spec"))
}

fn violations(wrong: Problems) -> Status {
    let mut facts = HashMap::new();
    if wrong.untold() > 0 {
        facts.insert("untold_violations".to_owned(), wrong.untold().to_string());
    }
    let mut details = details(Reason::InvalidArgument, facts);
    for Problem { field, problem } in wrong.told() {
        details.add_bad_request_violation(field, problem);
    }
    // The number at the end of a long text must survive the cut.
    let (mut text, more) = (wrong.to_string(), format!("; and {} more", wrong.untold()));
    if wrong.untold() > 0 && text.len() > TEXT_BYTES {
        text = shown(text, TEXT_BYTES - more.len()) + &more;
    }
    make(Reason::InvalidArgument, text, details)
}

/// A bug. The caller gets an id, under which the log has the text.
pub(super) fn internal(detail: &str) -> Status {
    // Equal texts have equal ids, and nothing internal is disclosed.
    let digest = Sha256::digest(detail);
    let id: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    tracing::error!(error_id = %id, detail, "internal error");
    with(Reason::Internal, format_args!("internal error {id}; see the coordinator's log"), &[])
}

/// The engine answered a command with something that does not belong to it.
pub(super) fn unexpected(answer: &Answer) -> Status {
    internal(&format!("unexpected answer {answer:?}"))
}

/// The caller stopped reading the answer.
pub(super) fn not_read() -> Status {
    with(Reason::NotRead, format_args!("nothing of the answer was read for {:?}", limits::UNREAD), &[])
}

/// The coordinator is stopping.
pub(super) fn stopping() -> Status {
    refusal(Refusal::Stopping)
}

/// What the engine refused.
pub(super) fn refusal(refusal: Refusal) -> Status {
    match &refusal {
        Refusal::Internal(detail) => internal(detail),
        _ => with(reason(&refusal), &refusal, &facts(&refusal)),
    }
}

fn reason(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::NoSearch(_) => Reason::SearchNotFound,
        Refusal::NoWorker(_) => Reason::WorkerNotFound,
        Refusal::Exists(_) => Reason::SearchExists,
        Refusal::BeingDeleted(_) => Reason::SearchBeingDeleted,
        Refusal::RequestReused(_) => Reason::RequestIdReused,
        Refusal::Specification(_) => Reason::InvalidSpecification,
        Refusal::Measurement(_) => Reason::MeasurementRefused,
        Refusal::State { .. } => Reason::SearchState,
        Refusal::Budget { .. } => Reason::SearchBudget,
        Refusal::Superseded(_) => Reason::LeaseSuperseded,
        Refusal::ResultDiffers(_) => Reason::ResultDiffers,
        Refusal::Ended(_) => Reason::SearchEnded,
        Refusal::Quarantined { .. } => Reason::WorkerQuarantined,
        Refusal::TooManyLeases(_) => Reason::TooManyLeases,
        Refusal::TooManyWorkers(_) => Reason::TooManyWorkers,
        Refusal::Busy => Reason::Busy,
        Refusal::Full(_) => Reason::StoreFull,
        Refusal::Store(_) => Reason::StoreFailed,
        Refusal::Stopping => Reason::Stopping,
        Refusal::Internal(_) => Reason::Internal,
    }
}

fn facts(refusal: &Refusal) -> Vec<(&'static str, String)> {
    match refusal {
        Refusal::NoSearch(id) | Refusal::Exists(id) | Refusal::Ended(id) => vec![("search_id", id.to_string())],
        Refusal::State { search, .. } | Refusal::Budget { search, .. } => vec![("search_id", search.to_string())],
        Refusal::NoWorker(id) | Refusal::TooManyLeases(id) => vec![("worker_id", id.to_string())],
        Refusal::Quarantined { worker, .. } => vec![("worker_id", worker.to_string())],
        Refusal::RequestReused(id) => vec![("request_id", id.to_string())],
        Refusal::Superseded(LeaseKey { search, candidate, epoch })
        | Refusal::ResultDiffers(LeaseKey { search, candidate, epoch }) => vec![
            ("search_id", search.id.to_string()),
            ("candidate", candidate.to_string()),
            ("epoch", epoch.to_string()),
        ],
        Refusal::TooManyWorkers(most) => vec![("most", most.to_string())],
        Refusal::BeingDeleted(_)
        | Refusal::Specification(_)
        | Refusal::Measurement(_)
        | Refusal::Busy
        | Refusal::Full(_)
        | Refusal::Store(_)
        | Refusal::Stopping
        | Refusal::Internal(_) => vec![],
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
