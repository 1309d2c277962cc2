//! When a search ends, and what that does to its open candidates.

use std::time::Duration;

use evocache_proto::domain::CandidateId;

use super::lease::moved;
use crate::engine::decision::{Context, Decision};
use crate::engine::state::Search;
use crate::ports::{Fact, SearchState};
use evocache_domain::lease::{self, Event, Transition};
use evocache_domain::time::Timestamp;

/// A search fails once this many of its candidates have failed and no fewer than have succeeded.
pub const HOPELESS_FAILURES: u64 = 10;

/// Ends a search and cancels its open candidates.
pub(super) fn end(
    search: &Search,
    phase: SearchState,
    reason: &str,
    decision: Decision,
    context: &Context<'_>,
) -> Decision {
    let ended = Fact::SearchMoved { search: search.id.clone(), phase, reason: reason.to_owned(), at: context.now };
    let mut decision = decision.fact(ended);
    for &id in search.pending.iter().chain(&search.leased) {
        let Some(candidate) = search.candidate(id) else { continue };
        // The candidate that this very decision finishes is still open in `search`.
        let finished = decision.facts.iter().any(|f| {
            matches!(f, Fact::LeaseMoved { search: s, candidate: c, state, .. }
                if *s == search.id && *c == id && !state.is_open())
        });
        if finished {
            continue;
        }
        if let Ok(Transition::To(next)) = lease::step(&candidate.lease, &Event::Cancel, context.now, context.policy) {
            decision = decision.fact(moved(search, id, candidate, next));
        }
    }
    decision
}

/// The limit of the budget that is used up once `more` prompts are evaluated, if any.
pub(super) fn used_up(search: &Search, more: u64, device_time: Duration, now: Timestamp) -> Option<&'static str> {
    let budget = &search.spec.budget;
    if search.is_rebuilding() {
        // What the search has used is unknown until the rebuild is done; then a tick ends it.
        None
    } else if search.is_spent(more) {
        Some("evaluation budget used up")
    } else if budget.stagnation.is_some_and(|most| search.stagnant() >= most) {
        Some("the hypervolume has stopped growing")
    } else if budget.device_time.is_some_and(|most| device_time >= most) {
        Some("device time budget used up")
    } else if budget.wall_time.is_some_and(|most| search.wall_time(now) >= most) {
        Some("wall time budget used up")
    } else {
        None
    }
}

/// Whether the search has no candidate to propose and never will.
pub(super) fn nothing_left(search: &Search) -> bool {
    let next = CandidateId(search.candidates.len() as u64);
    search.breeder().is_some_and(|breeder| !breeder.awaits_plan() && breeder.ask(next).is_none())
}

/// Fails a search in which hardly any candidate can be evaluated, rather than breeding failures without end.
///
/// `more` is how many candidates fail with this decision, `last` the reason of the last one.
pub(super) fn fail_if_hopeless(
    search: &Search,
    more: u64,
    last: &str,
    decision: Decision,
    context: &Context<'_>,
) -> Decision {
    let failed = search.failed + more;
    if failed < HOPELESS_FAILURES || failed < search.evaluations.len() as u64 {
        return decision;
    }
    let reason = format!("{failed} candidates failed, {} succeeded; the last: {last}", search.evaluations.len());
    end(search, SearchState::Failed, &reason, decision, context)
}
