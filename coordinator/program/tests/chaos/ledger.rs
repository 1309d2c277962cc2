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

/// How long each list was at some moment.
pub(crate) type Marks = [usize; 4];

impl Ledger {
    /// How much there is now.
    pub(crate) fn marks(&self) -> Marks {
        [self.searches.len(), self.workers.len(), self.results.len(), self.requests.len()]
    }

    /// What there was at that moment.
    pub(crate) fn until(&self, [searches, workers, results, requests]: Marks) -> Self {
        Self {
            searches: self.searches[..searches].to_vec(),
            workers: self.workers[..workers].to_vec(),
            results: self.results[..results].to_vec(),
            requests: self.requests[..requests].to_vec(),
        }
    }

    /// How many answers there were. A result is known by its lease and has no request that is remembered.
    pub(crate) fn answers(&self) -> usize {
        self.requests.len() + self.results.len()
    }
}
