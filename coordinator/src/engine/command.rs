//! What the engine can be asked to do, and what it answers. Refusals are in `refusal.rs`.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{
    Budget, CandidateId, Declaration, Epoch, Measurement, PromptSet, RequestId, Schedule, SearchId, SearchRef,
    SearchSpec, WorkerId,
};

/// Names a mutating call so that a repeat gets the first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The id that the caller chose.
    pub id: RequestId,
    /// SHA-256 of the call's content.
    pub digest: [u8; 32],
}

/// Names one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseKey {
    /// The search, by id and uid: a lease of a deleted search does not fit a new one with the same id.
    pub search: SearchRef,
    /// The leased candidate.
    pub candidate: CandidateId,
    /// The epoch of the grant.
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
    /// Grant no leases until the search is resumed.
    Pause,
    /// Grant leases again.
    Resume,
    /// End the search for good.
    Stop,
    /// Remove the search and all its results.
    Delete,
}

/// Something for the engine to decide.
#[derive(Debug, Clone)]
pub enum Command {
    /// Create a search.
    Create {
        /// The id that the caller wants; `None`: the engine chooses one.
        search: Option<SearchId>,
        /// The specification.
        spec: Arc<SearchSpec>,
        /// Searches whose fronts become seeds of the new one.
        from: Vec<SearchId>,
    },
    /// Pause, resume, stop or delete a search.
    Move {
        /// The search to change.
        search: SearchId,
        /// The change.
        to: Move,
    },
    /// Raise the budget of a search.
    Extend {
        /// The search to extend.
        search: SearchId,
        /// The new limits; absent ones stay as they are.
        budget: Budget,
    },
    /// Register a worker.
    Register {
        /// What the worker declares.
        declaration: Arc<Declaration>,
        /// Name of the token that registers it; empty if the coordinator runs without tokens.
        principal: String,
    },
    /// Drain a worker: it gets no more work and leaves when it has none.
    Drain {
        /// The worker to drain.
        worker: WorkerId,
    },
    /// A worker leaves for good: its leases return to the queue.
    Deregister {
        /// The leaving worker.
        worker: WorkerId,
    },
    /// Grant a worker a lease, if a search has a candidate for it.
    Acquire {
        /// The worker that asks.
        worker: WorkerId,
    },
    /// Extend the deadlines of leases.
    Renew {
        /// The worker that holds them.
        worker: WorkerId,
        /// The leases to extend.
        leases: Vec<LeaseKey>,
    },
    /// Accept a measurement.
    Complete {
        /// The worker that measured.
        worker: WorkerId,
        /// The lease it measured under.
        lease: LeaseKey,
        /// The measurement.
        measurement: Measurement,
    },
    /// A worker could not evaluate a candidate.
    Fail {
        /// The worker that tried.
        worker: WorkerId,
        /// The lease it tried under.
        lease: LeaseKey,
        /// The worker's error text.
        reason: String,
        /// Whether another attempt may succeed.
        retryable: bool,
    },
    /// A worker returns a candidate that it has not evaluated.
    Release {
        /// The worker that returns it.
        worker: WorkerId,
        /// The lease it returns.
        lease: LeaseKey,
    },
    /// Look at the clock: expire leases, end searches whose budget is used up, quarantine a worker.
    Tick,
    /// Forget old request ids and workers that left long ago.
    Tidy,
    /// The store has removed the last record of a deleted search.
    Clear {
        /// The deleted search.
        search: SearchId,
    },
}

/// A granted lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The lease.
    pub lease: LeaseKey,
    /// The schedule to evaluate.
    pub schedule: Arc<Schedule>,
    /// Time until the lease expires unless it is renewed.
    pub ttl: Duration,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// The prompts to evaluate it on.
    pub prompts: PromptSet,
    /// Whether the worker may send a calibration profile with the result.
    pub profile: bool,
}

/// The answer to the renewal of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The lease.
    pub lease: LeaseKey,
    /// Time until it expires; `None`: the worker should abandon the evaluation.
    pub ttl: Option<Duration>,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The search that was created or changed.
    Search(SearchId),
    /// The worker that was registered, drained or deregistered.
    Worker(WorkerId),
    /// A lease, or none right now.
    Work {
        /// The lease, if there is one.
        offer: Option<Offer>,
        /// The worker should leave.
        draining: bool,
        /// Why there is no work, as text for people; empty if there is work or the worker should leave.
        idle: String,
    },
    /// Renewals, in the order of the request.
    Renewed {
        /// One for each lease.
        leases: Vec<Renewal>,
        /// The worker should leave.
        draining: bool,
    },
    /// Done; there is nothing to return.
    Accepted,
}
