//! The one place where an error becomes a gRPC status, with google.rpc details.
//!
//! | refusal | code | reason (domain `evocache`) |
//! |---|---|---|
//! | no search, no worker | NOT_FOUND | SEARCH_NOT_FOUND, WORKER_NOT_FOUND |
//! | id taken | ALREADY_EXISTS | SEARCH_EXISTS |
//! | id of a search that is still being deleted | ABORTED | SEARCH_BEING_DELETED, with RetryInfo |
//! | wrong field | INVALID_ARGUMENT | INVALID_ARGUMENT, with BadRequest |
//! | request id used for another call | INVALID_ARGUMENT | REQUEST_ID_REUSED |
//! | measurement not believed | INVALID_ARGUMENT | MEASUREMENT_REFUSED |
//! | wrong phase | FAILED_PRECONDITION | SEARCH_STATE |
//! | budget that is not raised, or used up all the same | FAILED_PRECONDITION | SEARCH_BUDGET |
//! | lease not the caller's | FAILED_PRECONDITION | LEASE_SUPERSEDED |
//! | another result for a lease that has one | FAILED_PRECONDITION | RESULT_DIFFERS |
//! | search has ended | FAILED_PRECONDITION | SEARCH_ENDED |
//! | a worker with 100 leases asks for another | FAILED_PRECONDITION | TOO_MANY_LEASES |
//! | a page of a front that has changed since the page before | ABORTED | LIST_CHANGED |
//! | a worker registers, and as many as are kept in mind are there | RESOURCE_EXHAUSTED | TOO_MANY_WORKERS |
//! | others cannot repeat what the worker measures | FAILED_PRECONDITION | WORKER_QUARANTINED |
//! | other protocol | FAILED_PRECONDITION | PROTOCOL_VERSION |
//! | nothing satisfies the question | NOT_FOUND | NO_SCHEDULE, with the nearest miss |
//! | no token, or none that is known or still valid | UNAUTHENTICATED | TOKEN_MISSING, TOKEN_UNKNOWN, TOKEN_EXPIRED |
//! | a token of another role | PERMISSION_DENIED | ROLE_NEEDED |
//! | worker registered with another token | PERMISSION_DENIED | WORKER_OF_ANOTHER |
//! | too many calls in a while, too many at once | RESOURCE_EXHAUSTED | RATE_LIMITED, TOO_MANY_CALLS, with RetryInfo |
//! | too many bytes under way | RESOURCE_EXHAUSTED | TOO_MANY_BYTES, with RetryInfo |
//! | message that does not end, answer that nobody reads | DEADLINE_EXCEEDED | NOT_HEARD, NOT_READ |
//! | message too large for its call | OUT_OF_RANGE | MESSAGE_TOO_LARGE |
//! | queue full | RESOURCE_EXHAUSTED | BUSY, with RetryInfo |
//! | no room on the store's disk | UNAVAILABLE | STORE_FULL, with RetryInfo |
//! | store failed | UNAVAILABLE | STORE_FAILED |
//! | another backup under way | FAILED_PRECONDITION | BACKUP_RUNNING |
//! | too much changed while a backup was read | ABORTED | BACKUP_OVERTAKEN |
//! | stopping | UNAVAILABLE | STOPPING, with RetryInfo |
//! | bug | INTERNAL | INTERNAL, the text is in the log under the id that is told |

use std::collections::HashMap;
use std::time::Duration;

use evocache_proto::domain::{Problem, Problems, SpecError, WorkerId, shown};
use evocache_proto::wire::WireError;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::quota::{Excess, Kind};
use crate::engine::{LeaseKey, Refusal};
use crate::ports::BackupError;

const DOMAIN: &str = "evocache";

/// Bytes of a status' text, and of each fact beside it. gRPC sends both in headers, of which clients take 8 KiB: the text
/// three times as long if it is no ASCII, and once more with all details in base 64.
const TEXT_BYTES: usize = 1024;
const FACT_BYTES: usize = 200;

/// The one place where a status is made, so that none grows with what somebody sent.
fn make(code: Code, text: impl std::fmt::Display, details: ErrorDetails) -> Status {
    Status::with_error_details(code, shown(text, TEXT_BYTES), details)
}

fn with(code: Code, reason: &str, text: String, facts: &[(&str, String)]) -> Status {
    let facts: HashMap<String, String> =
        facts.iter().map(|(name, fact)| ((*name).to_owned(), shown(fact, FACT_BYTES))).collect();
    make(code, text, ErrorDetails::with_error_info(reason, DOMAIN, facts))
}

fn retry(code: Code, reason: &str, text: String, after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(Some(after));
    make(code, text, details)
}

/// A field that is wrong.
pub(super) fn invalid(field: &str, problem: impl std::fmt::Display) -> Status {
    violations(Problem::new(field, problem).into())
}

/// A message that is no valid value.
pub(super) fn malformed(error: WireError) -> Status {
    violations(error.into())
}

/// A specification with wrong fields; paths start at `spec`.
pub(super) fn spec(error: SpecError) -> Status {
    violations(error.0.within("spec"))
}

fn violations(wrong: Problems) -> Status {
    let mut facts = HashMap::new();
    if wrong.untold() > 0 {
        facts.insert("untold_violations".to_owned(), wrong.untold().to_string());
    }
    let mut details = ErrorDetails::with_error_info("INVALID_ARGUMENT", DOMAIN, facts);
    for Problem { field, problem } in wrong.told() {
        details.add_bad_request_violation(field, problem);
    }
    // Of a text that is too long the number at its end would be lost.
    let (mut text, more) = (wrong.to_string(), format!("; and {} more", wrong.untold()));
    if wrong.untold() > 0 && text.len() > TEXT_BYTES {
        text = shown(text, TEXT_BYTES - more.len()) + &more;
    }
    make(Code::InvalidArgument, text, details)
}

/// A worker that speaks another protocol version.
pub(super) fn protocol(theirs: u32, ours: u32) -> Status {
    let text =
        format!("the worker speaks protocol version {theirs}, this coordinator version {ours}: update the older");
    let facts = [("worker", theirs.to_string()), ("coordinator", ours.to_string())];
    with(Code::FailedPrecondition, "PROTOCOL_VERSION", text, &facts)
}

/// A page is asked for of a list whose rows have changed their places since the page before.
pub(super) fn list_changed() -> Status {
    let text = "the list has changed since the page before: begin without page_token".to_owned();
    with(Code::Aborted, "LIST_CHANGED", text, &[])
}

/// Nothing satisfies the question; `facts` describe the nearest miss.
pub(super) fn no_schedule(text: String, facts: &[(&str, String)]) -> Status {
    with(Code::NotFound, "NO_SCHEDULE", text, facts)
}

/// A call without a token. Says nothing of whether a given one would be enough.
pub(super) fn token_missing() -> Status {
    let text = "this coordinator asks for a token in the header 'authorization: Bearer TOKEN'".to_owned();
    with(Code::Unauthenticated, "TOKEN_MISSING", text, &[])
}

/// A call with a token that is in no entry.
pub(super) fn token_unknown() -> Status {
    with(Code::Unauthenticated, "TOKEN_UNKNOWN", "this coordinator does not know the token".to_owned(), &[])
}

/// A call with a token whose time is over. Its holder has it, so its name is no secret from them.
pub(super) fn token_expired(name: &str) -> Status {
    let text = format!("the token of '{name}' has expired");
    with(Code::Unauthenticated, "TOKEN_EXPIRED", text, &[("name", name.to_owned())])
}

/// A call that the token's role may not make.
pub(super) fn role_needed(method: &str, role: &str, needed: &str) -> Status {
    let text = format!("a token of role '{role}' may not call {method}; it takes role '{needed}'");
    let facts = [("method", method.to_owned()), ("role", role.to_owned()), ("needed", needed.to_owned())];
    with(Code::PermissionDenied, "ROLE_NEEDED", text, &facts)
}

/// A worker that was registered with the token of somebody else.
pub(super) fn worker_of_another(worker: &WorkerId) -> Status {
    let text = format!("worker '{worker}' was registered with another token; register again");
    with(Code::PermissionDenied, "WORKER_OF_ANOTHER", text, &[("worker_id", worker.to_string())])
}

/// More calls than the caller's allowance.
pub(super) fn too_much(excess: Excess, kind: Kind) -> Status {
    let kind = kind.as_str();
    match excess {
        Excess::Rate(wait) => {
            // Rounded up, so that who waits as long as it is told is not early.
            let wait = Duration::from_millis(wait.as_millis() as u64 + 1);
            let text = format!("too many calls of the kind '{kind}' in a while; the next is welcome in {wait:?}");
            retry(Code::ResourceExhausted, "RATE_LIMITED", text, wait)
        }
        Excess::AtOnce => {
            let text = format!("too many calls of the kind '{kind}' that are not over yet");
            retry(Code::ResourceExhausted, "TOO_MANY_CALLS", text, Duration::from_secs(1))
        }
    }
}

/// A message that its call does not take.
pub(super) fn message_too_large(bytes: usize, most: usize) -> Status {
    let text = format!("a message of {bytes} bytes is too large: this call takes at most {most}");
    let facts = [("bytes", bytes.to_string()), ("most", most.to_string())];
    with(Code::OutOfRange, "MESSAGE_TOO_LARGE", text, &facts)
}

/// A message or an answer for which there is no room, because the caller has so many others under way.
pub(super) fn too_many_bytes(bytes: usize, most: usize) -> Status {
    let text = format!(
        "no room for {bytes} bytes: requests and answers of this caller that are not read to their end take up to {most}"
    );
    retry(Code::ResourceExhausted, "TOO_MANY_BYTES", text, Duration::from_secs(1))
}

/// A call that did not come to its end.
pub(super) fn not_heard(within: Duration) -> Status {
    with(Code::DeadlineExceeded, "NOT_HEARD", format!("the message did not come within {within:?}"), &[])
}

/// An answer that nobody reads.
pub(super) fn not_read(within: Duration) -> Status {
    with(Code::DeadlineExceeded, "NOT_READ", format!("nothing of the answer was read for {within:?}"), &[])
}

/// A backup that does not come to its end.
pub(super) fn backup(error: BackupError) -> Status {
    let text = error.to_string();
    match error {
        BackupError::Store(error) => refusal(Refusal::Store(error)),
        BackupError::Busy => with(Code::FailedPrecondition, "BACKUP_RUNNING", text, &[]),
        BackupError::Overtaken(_) => with(Code::Aborted, "BACKUP_OVERTAKEN", text, &[]),
        BackupError::Untaken(_) => not_read(super::limits::UNREAD),
    }
}

/// The coordinator is stopping.
pub(super) fn stopping() -> Status {
    refusal(Refusal::Stopping)
}

fn lease(key: &LeaseKey) -> [(&'static str, String); 3] {
    [
        ("search_id", key.search.id.to_string()),
        ("candidate", key.candidate.to_string()),
        ("epoch", key.epoch.to_string()),
    ]
}

/// What the engine refused.
pub(super) fn refusal(refusal: Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoSearch(id) => with(Code::NotFound, "SEARCH_NOT_FOUND", text, &[("search_id", id.to_string())]),
        Refusal::NoWorker(id) => with(Code::NotFound, "WORKER_NOT_FOUND", text, &[("worker_id", id.to_string())]),
        Refusal::Exists(id) => with(Code::AlreadyExists, "SEARCH_EXISTS", text, &[("search_id", id.to_string())]),
        Refusal::RequestReused(id) => {
            with(Code::InvalidArgument, "REQUEST_ID_REUSED", text, &[("request_id", id.to_string())])
        }
        Refusal::Specification(_) => with(Code::InvalidArgument, "INVALID_SPECIFICATION", text, &[]),
        Refusal::Measurement(_) => with(Code::InvalidArgument, "MEASUREMENT_REFUSED", text, &[]),
        Refusal::Phase { search, .. } => {
            with(Code::FailedPrecondition, "SEARCH_STATE", text, &[("search_id", search.to_string())])
        }
        Refusal::Budget { search, .. } => {
            with(Code::FailedPrecondition, "SEARCH_BUDGET", text, &[("search_id", search.to_string())])
        }
        Refusal::Superseded(key) => with(Code::FailedPrecondition, "LEASE_SUPERSEDED", text, &lease(&key)),
        Refusal::ResultDiffers(key) => with(Code::FailedPrecondition, "RESULT_DIFFERS", text, &lease(&key)),
        Refusal::Ended(id) => with(Code::FailedPrecondition, "SEARCH_ENDED", text, &[("search_id", id.to_string())]),
        Refusal::Quarantined { worker, .. } => {
            with(Code::FailedPrecondition, "WORKER_QUARANTINED", text, &[("worker_id", worker.to_string())])
        }
        Refusal::TooManyLeases(id) => {
            with(Code::FailedPrecondition, "TOO_MANY_LEASES", text, &[("worker_id", id.to_string())])
        }
        Refusal::TooManyWorkers(most) => {
            with(Code::ResourceExhausted, "TOO_MANY_WORKERS", text, &[("most", most.to_string())])
        }
        Refusal::BeingDeleted(_) => retry(Code::Aborted, "SEARCH_BEING_DELETED", text, Duration::from_secs(1)),
        Refusal::Busy => retry(Code::ResourceExhausted, "BUSY", text, Duration::from_secs(1)),
        Refusal::Full(_) => retry(Code::Unavailable, "STORE_FULL", text, Duration::from_secs(10)),
        Refusal::Store(_) => with(Code::Unavailable, "STORE_FAILED", text, &[]),
        Refusal::Stopping => retry(Code::Unavailable, "STOPPING", text, Duration::from_secs(2)),
        Refusal::Internal(detail) => {
            // The same text has the same id: enough to find the line in the log, and nothing internal is told.
            let digest = Sha256::digest(&detail);
            let id: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            tracing::error!(error_id = %id, detail, "internal error");
            with(Code::Internal, "INTERNAL", format!("internal error {id}; see the coordinator's log"), &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http;

    use super::*;

    /// Bytes of the headers in which a status is sent.
    fn sent(status: Status) -> usize {
        let answer: http::Response<tonic::body::Body> = status.into_http();
        answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    }

    #[test]
    fn no_status_is_larger_than_what_clients_read() {
        let mut wrong = Problems::default();
        for i in 0..1_000_000 {
            wrong.add(format_args!("rungs[{i}]"), "ü".repeat(300));
        }
        let status = spec(SpecError(wrong));
        assert!(status.message().ends_with("; and 999997 more"), "{status}");
        assert!(sent(status) < 8192);
        let long = "ü".repeat(1 << 20);
        let evil = [
            invalid(&long, &long),
            refusal(Refusal::Measurement(long.clone())),
            refusal(Refusal::Specification(long.clone())),
            role_needed(&long, "reader", "admin"),
            no_schedule(long.clone(), &[("nearest_candidate", long.clone()), ("wanted", long.clone())]),
        ];
        for status in evil {
            let bytes = sent(status);
            assert!(bytes < 8192, "{bytes}");
        }
    }
}
