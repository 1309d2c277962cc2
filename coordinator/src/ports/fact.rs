//! The facts: everything that changes the engine's durable state, and everything that is stored.

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

/// What the first worker of a search declared; later workers must declare the same.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// Digest of the model's weights and configuration.
    pub fingerprint: String,
    /// The model's slots: what can be cached.
    pub layout: Arc<Layout>,
    /// The quality metrics that its workers measure.
    pub metrics: Vec<MetricDeclaration>,
    /// Multiply-accumulates at the native resolution, if known.
    pub cost: Option<CostModel>,
}

/// A worker's registration.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// What the worker declared.
    pub declaration: Arc<Declaration>,
    /// When it registered.
    pub at: Timestamp,
    /// Name of the token that registered it; empty if the coordinator ran without tokens.
    pub principal: String,
}

/// The answer to a mutating call, kept so that a repeat gets the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// The kind of call, such as `create_search`.
    pub kind: String,
    /// SHA-256 of the request: detects a request id that is used for two different calls.
    pub digest: [u8; 32],
    /// The id in the answer, or empty.
    pub subject: String,
    /// When the call was answered.
    pub at: Timestamp,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A worker registered.
    WorkerRegistered {
        /// The id of the new registration.
        worker: WorkerId,
        /// What the worker declared.
        registration: Registration,
    },
    /// A worker is to leave: it gets no more work.
    WorkerDraining {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker is no longer listed: it deregistered, or was silent for too long.
    WorkerForgotten {
        /// The worker.
        worker: WorkerId,
    },
    /// Others could not reproduce a worker's measurements: it gets no more work.
    WorkerQuarantined {
        /// The worker.
        worker: WorkerId,
        /// How its measurements differ, as text for people.
        reason: String,
        /// When the engine decided it.
        at: Timestamp,
    },
    /// A worker's results are excluded from a search.
    WorkerExcluded {
        /// The search.
        search: SearchId,
        /// The worker whose results are excluded.
        worker: WorkerId,
    },
    /// A search was created.
    SearchCreated {
        /// The search's id.
        search: SearchId,
        /// Distinguishes it from others that had or will have the same id.
        uid: SearchUid,
        /// The specification.
        spec: Arc<SearchSpec>,
        /// When it was created.
        at: Timestamp,
    },
    /// The first worker joined a search.
    SearchBound {
        /// The search.
        search: SearchId,
        /// What the worker declared.
        model: ModelFacts,
        /// When it joined.
        at: Timestamp,
    },
    /// A search changed its phase.
    SearchMoved {
        /// The search.
        search: SearchId,
        /// The new phase.
        phase: SearchState,
        /// Why, as text for people.
        reason: String,
        /// When the phase changed.
        at: Timestamp,
    },
    /// A search has another budget.
    SearchExtended {
        /// The search.
        search: SearchId,
        /// All limits, including those that stay.
        budget: Budget,
        /// Total time between its completions and extensions, which is not wall time of the search.
        rested: Duration,
        /// The number of evaluations at each of its completions: the breeder scored everything anew then.
        settled: Vec<u64>,
    },
    /// A search was deleted. Its records are removed a few at a time ([`Store::clear`](super::Store::clear)).
    SearchDeleted {
        /// The search.
        search: SearchId,
    },
    /// The last record of a deleted search was removed: its id is free.
    SearchCleared {
        /// The deleted search.
        search: SearchId,
    },
    /// A candidate was bred.
    CandidateCreated {
        /// The search.
        search: SearchId,
        /// The candidate's id: the number of candidates before it.
        candidate: CandidateId,
        /// The schedule, the prompts to evaluate, and where the candidate comes from.
        proposal: Proposal,
    },
    /// A candidate's lease changed its state. Renewals are not stored: after a restart every lease gets a full term.
    LeaseMoved {
        /// The search.
        search: SearchId,
        /// The candidate.
        candidate: CandidateId,
        /// The new state of its lease.
        state: lease::State,
        /// When the current or last lease was granted.
        granted: Timestamp,
    },
    /// A measurement was accepted.
    Evaluated {
        /// The search.
        search: SearchId,
        /// The number of evaluations before it.
        sequence: u64,
        /// The evaluation. Its thumbnails are stored separately and not kept in memory.
        evaluation: Arc<Evaluation>,
    },
    /// A mutating call was answered.
    RequestAnswered {
        /// The id that the caller gave the call.
        request: RequestId,
        /// What it takes to give the same answer again.
        record: RequestRecord,
    },
    /// An answered call is so old that no caller will repeat it.
    RequestForgotten {
        /// The call.
        request: RequestId,
    },
}
