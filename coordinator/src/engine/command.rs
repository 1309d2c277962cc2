//! What the engine can be asked to do, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{
    Budget, CandidateId, Declaration, Epoch, Measurement, PromptSet, RequestId, Schedule, SearchId, SearchRef,
    SearchSpec, WorkerId,
};

use crate::ports::{Room, StoreError};

/// Names a mutating call so that a repeat gets the first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The caller's id.
    pub id: RequestId,
    /// SHA-256 of the call's content.
    pub digest: [u8; 32],
}

/// Names one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseKey {
    /// Of which search, and of no other with its id.
    pub search: SearchRef,
    /// Which candidate.
    pub candidate: CandidateId,
    /// Which grant.
    pub epoch: Epoch,
}

impl std::fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.search.id, self.candidate)
    }
}

/// What a person does with a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Hand out nothing until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// End it for good.
    Stop,
    /// Remove it with all its results.
    Delete,
}

/// Something to decide.
#[derive(Debug, Clone)]
pub enum Command {
    /// Create a search.
    Create {
        /// The id that the caller wants.
        search: Option<SearchId>,
        /// What it is for.
        spec: Arc<SearchSpec>,
        /// Searches whose fronts it starts from.
        from: Vec<SearchId>,
    },
    /// Pause, resume, stop or delete a search.
    Move {
        /// Which.
        search: SearchId,
        /// How.
        to: Move,
    },
    /// Raise the budget of a search.
    Extend {
        /// Which.
        search: SearchId,
        /// The limits to raise; what is absent stays.
        budget: Budget,
    },
    /// Register a worker.
    Register {
        /// What it declares.
        declaration: Arc<Declaration>,
        /// Who registers it; empty where nobody is asked.
        principal: String,
    },
    /// Drain a worker.
    Drain {
        /// Which.
        worker: WorkerId,
    },
    /// A worker leaves for good: what it has goes back to the queue.
    Deregister {
        /// Which.
        worker: WorkerId,
    },
    /// Give a worker something to do, if there is anything.
    Acquire {
        /// Which.
        worker: WorkerId,
    },
    /// Keep leases alive.
    Renew {
        /// Whose.
        worker: WorkerId,
        /// Which.
        leases: Vec<LeaseKey>,
    },
    /// Take a result.
    Complete {
        /// Whose.
        worker: WorkerId,
        /// For which lease.
        lease: LeaseKey,
        /// What was measured.
        measurement: Measurement,
    },
    /// A candidate could not be evaluated.
    Fail {
        /// By whom.
        worker: WorkerId,
        /// For which lease.
        lease: LeaseKey,
        /// Why.
        reason: String,
        /// Whether another attempt may succeed.
        retryable: bool,
    },
    /// Take a candidate back untried.
    Release {
        /// From whom.
        worker: WorkerId,
        /// Which lease.
        lease: LeaseKey,
    },
    /// Look at the clock: expire leases and budgets.
    Tick,
    /// Forget what is too old to matter.
    Tidy,
    /// The store has nothing left of a deleted search.
    Clear {
        /// Which.
        search: SearchId,
    },
}

/// A granted lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Which.
    pub lease: LeaseKey,
    /// What to run.
    pub schedule: Arc<Schedule>,
    /// How long it lives without renewal.
    pub ttl: Duration,
    /// 1 for the first.
    pub attempt: u32,
    /// The prompts to evaluate it on.
    pub prompts: PromptSet,
    /// Whether a calibration profile is welcome.
    pub profile: bool,
}

/// How a renewal went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Of which lease.
    pub lease: LeaseKey,
    /// How long it lives on; `None`: abandon the evaluation.
    pub ttl: Option<Duration>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The search that was created or moved.
    Search(SearchId),
    /// The worker that was registered or drained.
    Worker(WorkerId),
    /// Something to do, or nothing right now.
    Work {
        /// The lease, if there is work.
        offer: Option<Offer>,
        /// The worker is to leave.
        draining: bool,
        /// Why there is no work, for people; empty if there is some, or none is to be had.
        idle: String,
    },
    /// In the order of the request.
    Renewed {
        /// One per lease.
        leases: Vec<Renewal>,
        /// The worker is to leave.
        draining: bool,
    },
    /// Done, nothing more to say.
    Accepted,
}

/// Why a command is not carried out. Nothing has changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No such search.
    #[error("no search '{0}'")]
    NoSearch(SearchId),
    /// No such worker: it never registered, or was silent for so long that it was forgotten.
    #[error("no worker '{0}'; register again")]
    NoWorker(WorkerId),
    /// The id is taken.
    #[error("there is a search '{0}' already")]
    Exists(SearchId),
    /// A search with this id was deleted, and the store still has records of it.
    #[error(
        "a search '{0}' was deleted, and its records are still being removed: try again in a moment, or take another id"
    )]
    BeingDeleted(SearchId),
    /// The same request id was used for another call.
    #[error("request id '{0}' was used for another call; make a new one for each call")]
    RequestReused(RequestId),
    /// The search is in a phase in which this cannot be done.
    #[error("search '{search}' {problem}")]
    Phase {
        /// Which search.
        search: SearchId,
        /// What does not go, and what would.
        problem: String,
    },
    /// The search cannot go on with this budget.
    #[error("search '{search}' cannot be extended: {problem}")]
    Budget {
        /// Which search.
        search: SearchId,
        /// Which limit, with its numbers, and what would do.
        problem: String,
    },
    /// With the imported fronts, the specification is not valid.
    #[error("{0}")]
    Specification(String),
    /// The lease is not (any more) the worker's.
    #[error("the lease on candidate {} of search '{}' with epoch {} was superseded", .0.candidate, .0.search, .0.epoch)]
    Superseded(LeaseKey),
    /// The lease has a result already, and this is another one.
    #[error(
        "the lease on candidate {} of search '{}' with epoch {} has a result already, and this is another one: the first stays",
        .0.candidate, .0.search.id, .0.epoch
    )]
    ResultDiffers(LeaseKey),
    /// Others cannot repeat what the worker has measured.
    #[error("worker '{worker}' is in quarantine: {reason}; look at its device, then start it again")]
    Quarantined {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// The worker asks for more and finishes nothing.
    #[error("worker '{0}' has {most} candidates already; complete, fail or release some of them first", most = super::LEASES_PER_WORKER)]
    TooManyLeases(WorkerId),
    /// No worker that is kept in mind has left.
    #[error("{0} workers are registered already, and none of them has left: end some, or wait until they are silent")]
    TooManyWorkers(usize),
    /// The search has ended; nobody wants the result.
    #[error("search '{0}' has ended; drop the evaluation")]
    Ended(SearchId),
    /// The measurement is not believed.
    #[error("the measurement is refused: {0}")]
    Measurement(String),
    /// Too many calls wait to be decided.
    #[error("the coordinator has too many calls waiting")]
    Busy,
    /// The store's disk has no room for this now.
    #[error(
        "the store's disk has {} MiB left, and {} MiB are kept free: it goes on by itself when there is room",
        .0.left >> 20, .0.reserve >> 20
    )]
    Full(Room),
    /// The store failed; memory and disk are as they were.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
    /// A bug: told in the log in full.
    #[error("internal error: {0}")]
    Internal(String),
}
