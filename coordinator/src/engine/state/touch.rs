//! Changes of the state that are not stored.

use evocache_proto::domain::{CandidateId, SearchId, WorkerId};

use evocache_domain::lease;
use evocache_domain::time::Timestamp;

/// A change that a restart may forget.
#[derive(Debug, Clone, PartialEq)]
pub enum Touch {
    /// A worker called.
    Seen {
        /// The worker.
        worker: WorkerId,
        /// When it called.
        at: Timestamp,
    },
    /// A lease was renewed.
    Renewed {
        /// The search that the lease belongs to.
        search: SearchId,
        /// The leased candidate.
        candidate: CandidateId,
        /// The lease with its new deadline.
        state: lease::State,
    },
    /// A worker reported a failure.
    WorkerFailed {
        /// The worker.
        worker: WorkerId,
    },
}
