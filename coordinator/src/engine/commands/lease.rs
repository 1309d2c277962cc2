//! What commands on leases share: finding a lease, recording its next state, taking back all leases of a worker.

use evocache_proto::domain::{CandidateId, WorkerId};

use crate::engine::command::LeaseKey;
use crate::engine::decision::{Context, Decision, find};
use crate::engine::refusal::Refusal;
use crate::engine::state::{Candidate, Search, State};
use crate::ports::Fact;
use evocache_domain::lease::{self, Event, State as LeaseState, Transition};

/// The search and candidate of a lease. A lease of a deleted search does not fit a new one with the same id.
pub(super) fn locate<'a>(state: &'a State, key: &LeaseKey) -> Result<(&'a Search, &'a Candidate), Refusal> {
    let search = find(state, &key.search.id)?;
    let candidate = search.candidate(key.candidate).filter(|_| search.is(&key.search));
    Ok((search, candidate.ok_or_else(|| Refusal::Superseded(key.clone()))?))
}

/// The fact that a candidate's lease has another state.
pub(super) fn moved(search: &Search, id: CandidateId, candidate: &Candidate, state: LeaseState) -> Fact {
    Fact::LeaseMoved { search: search.id.clone(), candidate: id, state, granted: candidate.granted }
}

/// The lease machine's refusal as the engine's.
pub(super) fn refused(refusal: lease::Refusal, key: &LeaseKey) -> Refusal {
    match refusal {
        lease::Refusal::Cancelled => Refusal::Ended(key.search.id.clone()),
        lease::Refusal::Superseded
        | lease::Refusal::Expired { .. }
        | lease::Refusal::TooEarly { .. }
        | lease::Refusal::Held
        | lease::Refusal::Epoch(_)
        | lease::Refusal::Finished => Refusal::Superseded(key.clone()),
    }
}

/// Why the candidate will not be tried again, if it has failed.
pub(super) fn failure(state: &LeaseState) -> Option<String> {
    match state {
        LeaseState::Failed { reason } => Some(reason.to_string()),
        LeaseState::Pending { .. }
        | LeaseState::Leased { .. }
        | LeaseState::Done { .. }
        | LeaseState::Cancelled { .. } => None,
    }
}

/// Returns all candidates that a worker holds to the queue, without counting the attempt.
pub(super) fn release_all(state: &State, by: &WorkerId, mut decision: Decision, context: &Context<'_>) -> Decision {
    for search in state.searches.values() {
        for &id in &search.leased {
            let Some(candidate) = search.candidate(id) else { continue };
            let LeaseState::Leased { worker, epoch, .. } = &candidate.lease else { continue };
            let event = Event::Release { worker: by.clone(), epoch: *epoch };
            if worker == by
                && let Ok(Transition::To(next)) = lease::step(&candidate.lease, &event, context.now, context.policy)
            {
                decision = decision.fact(moved(search, id, candidate, next));
            }
        }
    }
    decision
}

/// Why the worker is in quarantine, if it is.
pub(super) fn quarantine(state: &State, worker: &WorkerId) -> Option<String> {
    state.workers.get(worker)?.quarantine.clone()
}
