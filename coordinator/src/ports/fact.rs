//! The facts: all that changes the engine's durable state, and all that is stored.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{
    Budget, CandidateId, CostModel, Declaration, Layout, MetricDeclaration, RequestId, SearchId, SearchSpec,
    SearchState, SearchUid, WorkerId,
};

use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease;
use evocache_domain::search::Proposal;
use evocache_domain::time::Timestamp;

/// What the first worker of a search declared; binding for all that follow.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// Digest of weights and configuration.
    pub fingerprint: String,
    /// What can be cached.
    pub layout: Arc<Layout>,
    /// The quality metrics.
    pub metrics: Vec<MetricDeclaration>,
    /// Costs at the native resolution, if known.
    pub cost: Option<CostModel>,
}

/// A worker's registration.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// What it declared.
    pub declaration: Arc<Declaration>,
    /// When.
    pub at: Timestamp,
    /// By whom: the name of a token. Empty: nobody was asked.
    pub principal: String,
}

/// A mutating call that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Which call, such as `create_search`.
    pub kind: String,
    /// SHA-256 of the request, so that an id used twice for different things is noticed.
    pub digest: [u8; 32],
    /// What the answer is about: an id, or empty.
    pub subject: String,
    /// When it was answered.
    pub at: Timestamp,
}

/// Something that happened and is remembered.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A worker registered.
    WorkerRegistered {
        /// The new registration's id.
        worker: WorkerId,
        /// What it declared.
        registration: Registration,
    },
    /// A worker gets no more work.
    WorkerDraining {
        /// Which.
        worker: WorkerId,
    },
    /// A worker was silent for so long that it is no longer listed.
    WorkerForgotten {
        /// Which.
        worker: WorkerId,
    },
    /// A worker's results are not believed: it gets no more work.
    WorkerQuarantined {
        /// Which.
        worker: WorkerId,
        /// Why, for people.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// What a worker has measured counts no more in a search.
    Disowned {
        /// Which search.
        search: SearchId,
        /// Whose results.
        worker: WorkerId,
    },
    /// A search was created.
    SearchCreated {
        /// Its id.
        search: SearchId,
        /// What tells it from others of that id.
        uid: SearchUid,
        /// What it is for.
        spec: Arc<SearchSpec>,
        /// When.
        at: Timestamp,
    },
    /// The first worker joined a search.
    SearchBound {
        /// Which search.
        search: SearchId,
        /// What the worker declared.
        model: ModelFacts,
        /// When.
        at: Timestamp,
    },
    /// A search changed its phase.
    SearchMoved {
        /// Which search.
        search: SearchId,
        /// To where.
        phase: SearchState,
        /// Why, for people.
        reason: String,
        /// When.
        at: Timestamp,
    },
    /// A search has another budget from now on.
    SearchExtended {
        /// Which search.
        search: SearchId,
        /// All limits, those that stay among them.
        budget: Budget,
        /// How long in all it had completed and was not extended yet: that is no wall time of the search.
        rested: Duration,
        /// After how many evaluations it had completed, each time: then everything was scored anew.
        settled: Vec<u64>,
    },
    /// A search was removed with all that belongs to it, though its records go one after the other
    /// ([`Store::clear`](super::Store::clear)).
    SearchDeleted {
        /// Which search.
        search: SearchId,
    },
    /// Nothing is left of a deleted search: another may have its id.
    SearchCleared {
        /// Which search.
        search: SearchId,
    },
    /// A candidate was bred.
    CandidateCreated {
        /// Of which search.
        search: SearchId,
        /// Its number: the number of candidates before it.
        candidate: CandidateId,
        /// What to run, and where it comes from.
        proposal: Proposal,
    },
    /// A candidate's lease changed its state. Renewals are no facts: after a restart every lease gets a full term.
    LeaseMoved {
        /// Of which search.
        search: SearchId,
        /// Which candidate.
        candidate: CandidateId,
        /// The new state.
        state: lease::State,
        /// When the current or last grant was made.
        granted: Timestamp,
    },
    /// A measurement was accepted.
    Evaluated {
        /// Of which search.
        search: SearchId,
        /// The number of evaluations before it.
        sequence: u64,
        /// The result. Its thumbnails are stored beside it and not kept in memory.
        evaluation: Arc<Evaluation>,
    },
    /// A mutating call was answered.
    RequestAnswered {
        /// The caller's id of the call.
        request: RequestId,
        /// Enough to give the same answer again.
        record: RequestRecord,
    },
    /// An answered call is so old that nobody will repeat it.
    RequestForgotten {
        /// Which.
        request: RequestId,
    },
}
