//! Quarantines a worker whose measurements others could not reproduce. Who that is, `trust` in the domain says.

use super::lease::release_all;
use crate::engine::decision::{Context, Decision};
use crate::engine::state::State;
use crate::ports::Fact;

/// Quarantines at most one worker: it gets no more work, its leases return to the queue, and searches that go on exclude
/// its results. One at a time, because without its results the others may look better.
pub(super) fn judge(state: &State, context: &Context<'_>) -> Option<Decision> {
    let active = || state.searches.values().filter(|search| !search.phase.is_final());
    let mut judged = active().filter(|search| !search.is_rebuilding());
    let (worker, reason) = judged.find_map(|search| search.totals.trust.suspect())?;
    let mut decision = release_all(state, &worker, Decision::default(), context);
    for search in active().filter(|search| search.evaluations.iter().any(|e| e.worker == worker)) {
        decision = decision.fact(Fact::WorkerExcluded { search: search.id.clone(), worker: worker.clone() });
    }
    // A worker that was forgotten needs no quarantine.
    if state.workers.contains_key(&worker) {
        decision = decision.fact(Fact::WorkerQuarantined { worker, reason, at: context.now });
    }
    Some(decision)
}
