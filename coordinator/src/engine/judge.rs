//! Decides what becomes of a worker whose results others cannot repeat. Pure; called with the clock.

use super::decide::{Context, Decision};
use super::evaluate::release_all;
use super::state::State;
use crate::ports::Fact;

/// Quarantines one worker, if one is to be: it gets no more work, what it has is for others, and what it has measured
/// counts no more in searches that go on. One at a time: without it, others may look better.
pub(super) fn judge(state: &State, context: &Context<'_>) -> Option<Decision> {
    let going_on = || state.searches.values().filter(|search| !search.phase.is_final());
    let mut known = going_on().filter(|search| !search.is_behind());
    let (worker, reason) = known.find_map(|search| search.trust.suspect())?;
    let mut decision = release_all(state, &worker, Decision::default(), context);
    for search in going_on().filter(|search| search.evaluations.iter().any(|e| e.worker == worker)) {
        decision = decision.fact(Fact::Disowned { search: search.id.clone(), worker: worker.clone() });
    }
    // It may have been forgotten: then there is nobody to keep from work.
    if state.workers.contains_key(&worker) {
        decision = decision.fact(Fact::WorkerQuarantined { worker, reason, at: context.now });
    }
    Some(decision)
}
