//! Why the engine refuses a command. A refused command has changed nothing.

use evocache_proto::domain::{RequestId, SearchId, WorkerId};

use super::command::LeaseKey;
use crate::ports::{Room, StoreError};

/// Leases that one worker may hold at a time: as many as one call renews. A worker has one device.
pub const LEASES_PER_WORKER: usize = 100;

/// Why the engine refuses a command.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The search does not exist.
    #[error("no search '{0}'")]
    NoSearch(SearchId),
    /// The worker never registered, or was silent for so long that the coordinator forgot it.
    #[error("no worker '{0}'; register again")]
    NoWorker(WorkerId),
    /// The id is taken.
    #[error("search '{0}' already exists")]
    Exists(SearchId),
    /// A search with this id was deleted, and the store still has records of it.
    #[error(
        "search '{0}' was deleted and its records are still being removed: try again in a moment, or take another id"
    )]
    BeingDeleted(SearchId),
    /// The request id was used for another call.
    #[error("request id '{0}' was used for another call; make a new one for each call")]
    RequestReused(RequestId),
    /// The search is in a phase in which this cannot be done.
    #[error("search '{search}' {problem}")]
    State {
        /// The search.
        search: SearchId,
        /// What cannot be done, and what can be done instead.
        problem: String,
    },
    /// The search cannot go on with this budget.
    #[error("search '{search}' cannot be extended: {problem}")]
    Budget {
        /// The search.
        search: SearchId,
        /// The limit that is too small, with its numbers, and what would suffice.
        problem: String,
    },
    /// With the imported fronts, the specification is not valid.
    #[error("{0}")]
    Specification(String),
    /// The worker does not hold the lease, or no longer holds it.
    #[error("the lease on candidate {} of search '{}' with epoch {} was superseded", .0.candidate, .0.search, .0.epoch)]
    Superseded(LeaseKey),
    /// The lease already has a result, and this is a different one.
    #[error(
        "the lease on candidate {} of search '{}' with epoch {} already has a different result, which is kept",
        .0.candidate, .0.search.id, .0.epoch
    )]
    ResultDiffers(LeaseKey),
    /// Other workers could not reproduce what the worker measured.
    #[error("worker '{worker}' is in quarantine: {reason}; check its device, then start it again")]
    Quarantined {
        /// The worker.
        worker: WorkerId,
        /// How its measurements differ from those of others.
        reason: String,
    },
    /// The worker asks for more leases and finishes none.
    #[error("worker '{0}' holds {LEASES_PER_WORKER} leases; complete, fail or release some of them first")]
    TooManyLeases(WorkerId),
    /// The list of workers is full, and all of them are active.
    #[error("{0} workers are registered and all are active: stop some, or wait until they are listed as gone")]
    TooManyWorkers(usize),
    /// The search has ended and takes no more results.
    #[error("search '{0}' has ended; drop the evaluation")]
    Ended(SearchId),
    /// The measurement is not plausible.
    #[error("the measurement is refused: {0}")]
    Measurement(String),
    /// The queue of calls is full.
    #[error("the coordinator has too many calls waiting")]
    Busy,
    /// The store's disk has too little room.
    #[error(
        "the store's disk has {} MiB left, less than the {} MiB to keep free: the coordinator continues when there is room",
        .0.left >> 20, .0.reserve >> 20
    )]
    Full(Room),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
    /// A bug; the log has the details.
    #[error("internal error: {0}")]
    Internal(String),
}
