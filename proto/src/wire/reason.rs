//! Why a call fails, in words for programs: the closed list of reasons that an error's `google.rpc.ErrorInfo` may carry.
//!
//! Each reason has one status code, and a retry delay if the same call may succeed later. Reasons are part of the contract:
//! one may be added, none changes its text.

use std::time::Duration;

use tonic::Code;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident, $text:literal, $code:ident $(, retry in $seconds:literal s)?;)+) => {
        /// Why a call fails.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The text in `ErrorInfo.reason`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The status code that comes with it.
            pub fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)+
                }
            }

            /// The delay in `RetryInfo`, for a call that may succeed later; [`RateLimited`](Self::RateLimited) computes it.
            pub fn retry_after(self) -> Option<Duration> {
                match self {
                    $($(Self::$name => Some(Duration::from_secs($seconds)),)?)+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// No search has this id.
    SearchNotFound, "SEARCH_NOT_FOUND", NotFound;
    /// No worker has this id.
    WorkerNotFound, "WORKER_NOT_FOUND", NotFound;
    /// No schedule meets the conditions; the metadata name the nearest miss.
    NoSchedule, "NO_SCHEDULE", NotFound;
    /// Another search has this id.
    SearchExists, "SEARCH_EXISTS", AlreadyExists;
    /// A deleted search had this id, and its records are still being removed.
    SearchBeingDeleted, "SEARCH_BEING_DELETED", Aborted, retry in 1 s;
    /// A field is wrong; `BadRequest` names it.
    InvalidArgument, "INVALID_ARGUMENT", InvalidArgument;
    /// The specification is invalid together with the fronts that it starts from.
    InvalidSpecification, "INVALID_SPECIFICATION", InvalidArgument;
    /// The request id was used for another call.
    RequestIdReused, "REQUEST_ID_REUSED", InvalidArgument;
    /// The measurement contains an implausible value.
    MeasurementRefused, "MEASUREMENT_REFUSED", InvalidArgument;
    /// The message is larger than its call allows.
    MessageTooLarge, "MESSAGE_TOO_LARGE", OutOfRange;
    /// The search's state does not allow the call.
    SearchState, "SEARCH_STATE", FailedPrecondition;
    /// The budget is not raised, or used up even if raised.
    SearchBudget, "SEARCH_BUDGET", FailedPrecondition;
    /// The search has ended; nobody needs the result.
    SearchEnded, "SEARCH_ENDED", FailedPrecondition;
    /// The lease is not the worker's, or not any more.
    LeaseSuperseded, "LEASE_SUPERSEDED", FailedPrecondition;
    /// The lease has another result already.
    ResultDiffers, "RESULT_DIFFERS", FailedPrecondition;
    /// The worker holds as many leases as it may.
    TooManyLeases, "TOO_MANY_LEASES", FailedPrecondition;
    /// Other workers cannot reproduce what the worker measures.
    WorkerQuarantined, "WORKER_QUARANTINED", FailedPrecondition;
    /// The worker speaks another version of the protocol.
    ProtocolVersion, "PROTOCOL_VERSION", FailedPrecondition;
    /// Another backup is being made.
    BackupRunning, "BACKUP_RUNNING", FailedPrecondition;
    /// Too much changed while the backup was read.
    BackupOvertaken, "BACKUP_OVERTAKEN", Aborted;
    /// The front has changed since its previous page.
    ListChanged, "LIST_CHANGED", Aborted;
    /// The call has no token.
    TokenMissing, "TOKEN_MISSING", Unauthenticated;
    /// The token is in no entry of the coordinator's file.
    TokenUnknown, "TOKEN_UNKNOWN", Unauthenticated;
    /// The token has expired.
    TokenExpired, "TOKEN_EXPIRED", Unauthenticated;
    /// The token's role does not allow the call.
    RoleNeeded, "ROLE_NEEDED", PermissionDenied;
    /// The worker was registered with another token.
    WorkerOfAnother, "WORKER_OF_ANOTHER", PermissionDenied;
    /// The principal makes too many calls per second.
    RateLimited, "RATE_LIMITED", ResourceExhausted;
    /// The principal has too many concurrent calls.
    TooManyCalls, "TOO_MANY_CALLS", ResourceExhausted, retry in 1 s;
    /// The principal's unread answers and unprocessed requests hold too many bytes.
    TooManyBytes, "TOO_MANY_BYTES", ResourceExhausted, retry in 1 s;
    /// As many workers are registered as the coordinator keeps.
    TooManyWorkers, "TOO_MANY_WORKERS", ResourceExhausted;
    /// The engine's queue is full.
    Busy, "BUSY", ResourceExhausted, retry in 1 s;
    /// The request did not arrive completely in time.
    NotHeard, "NOT_HEARD", DeadlineExceeded;
    /// The caller stopped reading the answer.
    NotRead, "NOT_READ", DeadlineExceeded;
    /// The store's disk is full.
    StoreFull, "STORE_FULL", Unavailable, retry in 10 s;
    /// The store failed.
    StoreFailed, "STORE_FAILED", Unavailable;
    /// The coordinator is stopping.
    Stopping, "STOPPING", Unavailable, retry in 2 s;
    /// A bug in the coordinator; its log has the text under the id that the error names.
    Internal, "INTERNAL", Internal;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_reasons_share_a_text() {
        let texts: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(texts.len(), Reason::ALL.len());
    }

    #[test]
    fn every_reason_that_the_contract_names_is_in_the_list_with_its_code() {
        let contract = [
            include_str!("../../evocache/v1/fleet_service.proto"),
            include_str!("../../evocache/v1/search_service.proto"),
            include_str!("../../evocache/v1/store_service.proto"),
            include_str!("../../evocache/v1/worker_service.proto"),
        ];
        let prose = contract.concat().replace("//", " ").split_whitespace().collect::<Vec<_>>().join(" ");
        let mut named = 0;
        let is_reason = |text: &str| text.bytes().all(|b| b == b'_' || b.is_ascii_uppercase());
        for (before, after) in prose.match_indices("(`").map(|(at, _)| (&prose[..at], &prose[at + 2..])) {
            let Some((text, _)) = after.split_once("`)").filter(|(text, _)| is_reason(text)) else { continue };
            let reason = Reason::ALL.iter().find(|reason| reason.as_str() == text);
            let reason = reason.unwrap_or_else(|| panic!("{text} is not in the list"));
            let code = before.trim_end().rsplit(' ').next().unwrap().replace('_', "").to_lowercase();
            assert_eq!(code, format!("{:?}", reason.code()).to_lowercase(), "{text}");
            named += 1;
        }
        assert!(named > 10, "{named}");
    }
}
