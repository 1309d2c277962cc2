//! What callers were told: the only thing that a coordinator has promised to anybody.

use evocache::engine::LeaseKey;
use evocache_proto::domain::{Measurement, RequestId, SearchId, WorkerId};

/// A result that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) worker: WorkerId,
    pub(crate) lease: LeaseKey,
    pub(crate) measurement: Measurement,
}

/// All answers so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    pub(crate) searches: Vec<SearchId>,
    pub(crate) workers: Vec<WorkerId>,
    pub(crate) results: Vec<Taken>,
    pub(crate) requests: Vec<RequestId>,
}

impl Ledger {
    /// How many answers there were.
    pub(crate) fn answers(&self) -> usize {
        self.requests.len()
    }
}
