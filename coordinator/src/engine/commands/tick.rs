//! Looks at the clock: expires leases, and ends searches whose budget is used up.

use super::ending::{end, fail_if_hopeless, nothing_left, used_up};
use super::judge::judge;
use super::lease::{failure, moved};
use crate::engine::decision::{Context, Decision};
use crate::engine::state::State;
use crate::ports::SearchState;
use evocache_domain::lease::{self, Event, Transition};

pub(in crate::engine) fn tick(state: &State, context: &Context<'_>) -> Decision {
    if let Some(decision) = judge(state, context) {
        // The next tick sees what it changes.
        return decision;
    }
    let mut decision = Decision::default();
    for search in state.searches.values() {
        let (mut failures, mut last) = (0, String::new());
        for &id in &search.leased {
            let Some(candidate) = search.candidate(id) else { continue };
            if let Ok(Transition::To(next)) = lease::step(&candidate.lease, &Event::Expire, context.now, context.policy)
            {
                if let Some(why) = failure(&next) {
                    (failures, last) = (failures + 1, why);
                }
                decision = decision.fact(moved(search, id, candidate, next));
            }
        }
        // What a search has used is unknown during a rebuild.
        if search.phase != SearchState::Running || search.is_rebuilding() {
            continue;
        }
        if let Some(reason) = used_up(search, 0, search.totals.device_time, context.now) {
            decision = end(search, SearchState::Completed, reason, decision, context);
        } else if failures > 0 {
            decision = fail_if_hopeless(search, failures, &last, decision, context);
        } else if search.pending.is_empty() && search.leased.is_empty() && nothing_left(search) {
            decision = end(search, SearchState::Completed, "no schedule left to try", decision, context);
        }
    }
    decision
}
