//! Forgets request ids that nobody will repeat and workers that left long ago.

use std::time::Duration;

use crate::engine::decision::Decision;
use crate::engine::state::State;
use crate::ports::Fact;
use evocache_domain::time::Timestamp;

/// A repeated call is answered like the first for this long.
pub const REQUEST_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// A worker without a lease that is silent for this long is forgotten.
pub const WORKER_MEMORY: Duration = Duration::from_secs(24 * 3600);

pub(in crate::engine) fn tidy(state: &State, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    for (request, record) in &state.requests {
        if now.since(record.at) > REQUEST_MEMORY {
            decision = decision.fact(Fact::RequestForgotten { request: request.clone() });
        }
    }
    for (id, worker) in &state.workers {
        // Nobody is forgotten for silence while the coordinator was down.
        if now.since(worker.seen.max(state.recovered)) > WORKER_MEMORY && worker.leases == 0 {
            decision = decision.fact(Fact::WorkerForgotten { worker: id.clone() });
        }
    }
    decision
}
