//! Decides what a worker does next. Pure.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Epoch, WorkerId};

use super::command::{Answer, LeaseKey, Offer, Refusal};
use super::decide::{Context, Decision};
use super::evaluate::quarantine;
use super::search::Search;
use super::state::{State, Touch, Worker};
use crate::ports::{Fact, ModelFacts, Phase};
use evocache_domain::lease::{self, Event, State as LeaseState, Transition};
use evocache_domain::search::{Breeder, Proposal, Witness};

/// Candidates that one worker may have at a time: as many as one call renews. A worker has one device.
pub const LEASES_PER_WORKER: usize = 100;

/// Grants the worker a candidate of one of the searches that it can serve: of those of the highest priority the one
/// with the fewest running evaluations for its weight. The oldest that waits, else a new one.
pub(super) fn acquire(state: &State, id: &WorkerId, context: &Context<'_>) -> Result<Decision, Refusal> {
    let worker = state.workers.get(id).ok_or_else(|| Refusal::NoWorker(id.clone()))?;
    let seen = Touch::Seen { worker: id.clone(), at: context.now };
    if let Some(reason) = quarantine(state, id) {
        return Err(Refusal::Quarantined { worker: id.clone(), reason });
    }
    if worker.draining {
        return Ok(Decision::answer(Answer::Work { offer: None, draining: true, idle: String::new() }).touch(seen));
    }
    if worker.leases >= LEASES_PER_WORKER {
        return Err(Refusal::TooManyLeases(id.clone()));
    }
    if let Some(room) = context.scarce {
        let idle = Refusal::Full(room).to_string();
        return Ok(Decision::answer(Answer::Work { offer: None, draining: false, idle }).touch(seen));
    }
    let mut able: Vec<&Search> = state.searches.values().filter(|search| can_serve(search, worker)).collect();
    able.sort_by(|a, b| {
        // Running evaluations over weight, without a division.
        let share =
            |search: &Search, other: &Search| search.leased.len() as u64 * u64::from(other.spec.placement.weight);
        let priority = b.spec.placement.priority.cmp(&a.spec.placement.priority);
        priority.then(share(a, b).cmp(&share(b, a))).then(a.created.cmp(&b.created)).then(a.id.cmp(&b.id))
    });
    for search in able {
        let epoch = state.next_epoch(context.now);
        let to = Grantee { id, worker, epoch };
        if let Some(decision) = waiting(search, &to, context).or_else(|| new(search, &to, context)) {
            return Ok(decision.touch(seen));
        }
    }
    let idle = state.why_idle(worker);
    Ok(Decision::answer(Answer::Work { offer: None, draining: false, idle }).touch(seen))
}

fn can_serve(search: &Search, worker: &Worker) -> bool {
    let declaration = &worker.registration.declaration;
    matches!(search.phase, Phase::Pending | Phase::Running)
        && search.spec.model.name == declaration.model
        && search.admits(declaration).is_ok()
}

/// Who gets a candidate, and with what epoch.
struct Grantee<'a> {
    id: &'a WorkerId,
    worker: &'a Worker,
    epoch: Epoch,
}

/// A grant of a candidate that waits for one.
fn waiting(search: &Search, to: &Grantee<'_>, context: &Context<'_>) -> Option<Decision> {
    search.pending.iter().find_map(|&candidate| {
        let entry = search.candidate(candidate)?;
        offer(search, candidate, &entry.lease, &entry.proposal, to, context)
    })
}

fn offer(
    search: &Search,
    candidate: CandidateId,
    state: &LeaseState,
    proposal: &Proposal,
    to: &Grantee<'_>,
    context: &Context<'_>,
) -> Option<Decision> {
    let event = Event::Grant { worker: to.id.clone(), epoch: to.epoch };
    let Ok(Transition::To(next)) = lease::step(state, &event, context.now, context.policy) else { return None };
    let LeaseState::Leased { epoch, attempt, .. } = &next else { return None };
    let offer = Offer {
        lease: LeaseKey { search: search.reference(), candidate, epoch: *epoch },
        schedule: proposal.schedule.clone(),
        ttl: context.policy.ttl,
        attempt: *attempt,
        prompts: proposal.prompts,
        profile: to.worker.registration.declaration.profiles && candidate == CandidateId(0),
    };
    let moved = Fact::LeaseMoved { search: search.id.clone(), candidate, state: next, granted: context.now };
    Some(Decision::answer(Answer::Work { offer: Some(offer), draining: false, idle: String::new() }).fact(moved))
}

/// A grant of a new candidate, within the budget. The first one binds the search to what the worker declared.
fn new(search: &Search, to: &Grantee<'_>, context: &Context<'_>) -> Option<Decision> {
    if search.is_behind() || search.is_spent(search.open_prompts) {
        return None;
    }
    let candidate = CandidateId(search.candidates.len() as u64);
    let mut first = vec![];
    let proposal = match &search.bound {
        Some((_, breeder)) => {
            let alone = |measured: CandidateId| search.only_by(to.id, measured);
            let unproven = |measured: CandidateId| search.is_unproven(measured);
            breeder.ask_for(candidate, Witness { alone: &alone, unproven: &unproven })
        }
        None => {
            let declaration = &to.worker.registration.declaration;
            let model = ModelFacts {
                fingerprint: declaration.fingerprint.clone(),
                layout: Arc::new(declaration.layout.clone()),
                metrics: declaration.metrics.clone(),
                cost: declaration.cost.clone(),
            };
            let breeder = Breeder::new(search.spec.clone(), model.layout.clone()).ok()?;
            first.push(Fact::SearchBound { search: search.id.clone(), model, at: context.now });
            first.push(Fact::SearchMoved {
                search: search.id.clone(),
                phase: Phase::Running,
                reason: String::new(),
                at: context.now,
            });
            breeder.ask(candidate)
        }
    }?;
    let mut decision = offer(search, candidate, &LeaseState::new(), &proposal, to, context)?;
    first.push(Fact::CandidateCreated { search: search.id.clone(), candidate, proposal });
    decision.facts.splice(0..0, first);
    Some(decision)
}
