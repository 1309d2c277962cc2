//! The stored messages, and the number of their format.
//!
//! **Invariant:** a field's tag never changes its meaning. Adding a field keeps the format; any other change needs a new
//! [`FORMAT_VERSION`] and code that reads the one before it.

use evocache_proto::pb;

/// The storage format that this program writes and reads, and the first that is kept: every release from 0.1.0 on reads it.
/// Formats 1 to 3 were those of development builds and are refused.
pub const FORMAT_VERSION: u64 = 4;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WorkerRecord {
    /// As the worker sent it, without its request id.
    #[prost(message, optional, tag = "1")]
    pub(super) declaration: Option<pb::RegisterWorkerRequest>,
    #[prost(uint64, tag = "2")]
    pub(super) at: u64,
    /// Name of the token that registered it; empty on a coordinator without tokens.
    #[prost(string, tag = "3")]
    pub(super) principal: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct QuarantineRecord {
    #[prost(string, tag = "1")]
    pub(super) reason: String,
    #[prost(uint64, tag = "2")]
    pub(super) at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SearchRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) spec: Option<pb::SearchSpec>,
    #[prost(uint64, tag = "2")]
    pub(super) at: u64,
    #[prost(string, tag = "3")]
    pub(super) uid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ModelRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) model: Option<pb::ModelFacts>,
    #[prost(uint64, tag = "2")]
    pub(super) at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PhaseRecord {
    /// Place in the codec's list of phases, counted from 1.
    #[prost(uint32, tag = "1")]
    pub(super) phase: u32,
    #[prost(string, tag = "2")]
    pub(super) reason: String,
    #[prost(uint64, tag = "3")]
    pub(super) at: u64,
}

/// The budget of an extended search.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BudgetRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) budget: Option<pb::Budget>,
    /// Milliseconds in which it was completed and not yet extended, summed.
    #[prost(uint64, tag = "2")]
    pub(super) rested: u64,
    /// The number of evaluations at each completion.
    #[prost(uint64, repeated, tag = "3")]
    pub(super) settled: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CandidateRecord {
    #[prost(uint32, tag = "1")]
    pub(super) steps: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) decisions: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub(super) provenance: Option<pb::Provenance>,
    /// On how many prompts it is measured; 0: all.
    #[prost(uint32, tag = "4")]
    pub(super) prompts: u32,
    /// The lease, if the decision that created the candidate granted one.
    #[prost(message, optional, tag = "5")]
    pub(super) lease: Option<LeaseRecord>,
    /// The packed guidance decisions; empty if every step runs both passes.
    #[prost(bytes = "vec", tag = "6")]
    pub(super) guidance: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GrantRecord {
    #[prost(uint64, tag = "1")]
    pub(super) epoch: u64,
    #[prost(string, tag = "2")]
    pub(super) worker: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeaseRecord {
    #[prost(oneof = "LeaseState", tags = "1, 2, 3, 4, 5")]
    pub(super) state: Option<LeaseState>,
    #[prost(uint64, tag = "6")]
    pub(super) granted: u64,
    #[prost(message, repeated, tag = "7")]
    pub(super) grants: Vec<GrantRecord>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum LeaseState {
    #[prost(message, tag = "1")]
    Pending(PendingRecord),
    #[prost(message, tag = "2")]
    Leased(LeasedRecord),
    #[prost(message, tag = "3")]
    Done(GrantRecord),
    #[prost(message, tag = "4")]
    Failed(FailedRecord),
    #[prost(message, tag = "5")]
    Cancelled(CancelledRecord),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PendingRecord {
    #[prost(uint32, tag = "1")]
    pub(super) attempt: u32,
    #[prost(uint64, tag = "2")]
    pub(super) not_before: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeasedRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) holder: Option<GrantRecord>,
    #[prost(uint32, tag = "2")]
    pub(super) attempt: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FailedRecord {
    #[prost(uint32, tag = "1")]
    pub(super) attempts: u32,
    /// What the worker reported; absent if the last lease expired.
    #[prost(string, optional, tag = "2")]
    pub(super) message: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CancelledRecord {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EvaluationRecord {
    #[prost(uint64, tag = "1")]
    pub(super) candidate: u64,
    /// Without its thumbnails.
    #[prost(message, optional, tag = "2")]
    pub(super) measurement: Option<pb::Measurement>,
    #[prost(string, tag = "3")]
    pub(super) worker: String,
    #[prost(string, tag = "4")]
    pub(super) worker_name: String,
    #[prost(string, tag = "5")]
    pub(super) device: String,
    #[prost(uint64, tag = "6")]
    pub(super) started: u64,
    #[prost(uint64, tag = "7")]
    pub(super) finished: u64,
    #[prost(uint32, tag = "8")]
    pub(super) attempt: u32,
    /// Epoch of the lease that the evaluation ended; absent if its decision ended none.
    #[prost(uint64, optional, tag = "9")]
    pub(super) epoch: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ThumbnailsRecord {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) pictures: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AnsweredRecord {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) digest: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) subject: String,
    #[prost(uint64, tag = "4")]
    pub(super) at: u64,
}
