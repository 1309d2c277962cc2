//! Extends the deadlines of a worker's leases.

use evocache_proto::domain::WorkerId;

use super::lease::locate;
use crate::engine::command::{Answer, LeaseKey, Renewal};
use crate::engine::decision::{Context, Decision};
use crate::engine::refusal::Refusal;
use crate::engine::state::{Candidate, State, Touch};
use evocache_domain::lease::{self, Event, State as LeaseState, Transition};

/// Renews each lease for itself: one that was lost does not affect the others.
pub(in crate::engine) fn renew(
    state: &State,
    worker: &WorkerId,
    leases: &[LeaseKey],
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let Some(entry) = state.workers.get(worker) else { return Err(Refusal::NoWorker(worker.clone())) };
    let mut touches = vec![Touch::Seen { worker: worker.clone(), at: context.now }];
    let mut renewals = vec![];
    for key in leases {
        let event = Event::Renew { worker: worker.clone(), epoch: key.epoch };
        let candidate = locate(state, key).ok().map(|(_, candidate)| candidate);
        let step = |c: &Candidate| lease::step(&c.lease, &event, context.now, context.policy);
        let ttl = match candidate.map(|c| (c, step(c))) {
            Some((_, Ok(Transition::To(state)))) => {
                let (search, candidate) = (key.search.id.clone(), key.candidate);
                touches.push(Touch::Renewed { search, candidate, state });
                Some(context.policy.ttl)
            }
            // The lease has ended, but no tick has noticed yet: the result is still accepted.
            Some((_, Err(lease::Refusal::Expired { .. }))) => Some(context.policy.ttl),
            Some((c, Err(lease::Refusal::Superseded))) if waits_again(c, worker, key) => Some(context.policy.ttl),
            _ => None,
        };
        renewals.push(Renewal { lease: key.clone(), ttl });
    }
    let answer = Answer::Renewed { leases: renewals, draining: entry.draining };
    Ok(Decision { facts: vec![], touches, answer: Some(answer) })
}

/// Whether the candidate is back in the queue and nobody else has it: a result of this earlier grant is still accepted.
fn waits_again(candidate: &Candidate, worker: &WorkerId, key: &LeaseKey) -> bool {
    matches!(&candidate.lease, LeaseState::Pending { grants, .. }
        if grants.iter().any(|g| g.epoch == key.epoch && &g.worker == worker))
}
