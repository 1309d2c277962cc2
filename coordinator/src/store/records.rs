//! The records as prost messages. A field's tag never changes its meaning; what needs another has a new format version.

use evocache_proto::pb;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WorkerRecord {
    /// As it was sent, without its request id.
    #[prost(message, optional, tag = "1")]
    pub(super) declaration: Option<pb::RegisterWorkerRequest>,
    #[prost(uint64, tag = "2")]
    pub(super) at: u64,
    /// Empty: nobody was asked.
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
    /// Index into the phases, from 1.
    #[prost(uint32, tag = "1")]
    pub(super) phase: u32,
    #[prost(string, tag = "2")]
    pub(super) reason: String,
    #[prost(uint64, tag = "3")]
    pub(super) at: u64,
}

/// The budget of a search that was extended.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BudgetRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) budget: Option<pb::Budget>,
    /// Milliseconds that it had completed and was not extended yet, all together.
    #[prost(uint64, tag = "2")]
    pub(super) rested: u64,
    /// After how many evaluations it had completed, each time.
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
    /// 0: all.
    #[prost(uint32, tag = "4")]
    pub(super) prompts: u32,
    /// The lease that was granted by the decision that made the candidate.
    #[prost(message, optional, tag = "5")]
    pub(super) lease: Option<LeaseRecord>,
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
    /// Absent: the last lease expired.
    #[prost(string, optional, tag = "2")]
    pub(super) message: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CancelledRecord {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EvaluationRecord {
    #[prost(uint64, tag = "1")]
    pub(super) candidate: u64,
    /// Without thumbnails.
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
    /// The lease that the evaluation ended; absent where its decision did not end one.
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
