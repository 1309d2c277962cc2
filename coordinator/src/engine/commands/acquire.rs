//! Grants a worker a lease on a candidate.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Epoch, WorkerId};

use super::lease::quarantine;
use crate::engine::command::{Answer, LeaseKey, Offer};
use crate::engine::decision::{Context, Decision};
use crate::engine::refusal::{LEASES_PER_WORKER, Refusal};
use crate::engine::state::{Bound, Search, State, Touch, Worker};
use crate::ports::{Fact, ModelFacts, SearchState};
use evocache_domain::lease::{self, Event, State as LeaseState, Transition};
use evocache_domain::search::{Breeder, Proposal, Witness};

/// Grants a candidate of one of the searches that the worker can serve, in the order of [`by_share`]: the oldest
/// candidate in the search's queue, else a new one.
pub(in crate::engine) fn acquire(state: &State, id: &WorkerId, context: &Context<'_>) -> Result<Decision, Refusal> {
    let worker = state.workers.get(id).ok_or_else(|| Refusal::NoWorker(id.clone()))?;
    let seen = Touch::Seen { worker: id.clone(), at: context.now };
    let nothing = |draining, idle| Decision::answer(Answer::Work { offer: None, draining, idle }).touch(seen.clone());
    if let Some(reason) = quarantine(state, id) {
        return Err(Refusal::Quarantined { worker: id.clone(), reason });
    }
    if worker.draining {
        return Ok(nothing(true, String::new()));
    }
    if worker.leases >= LEASES_PER_WORKER {
        return Err(Refusal::TooManyLeases(id.clone()));
    }
    if let Some(room) = context.scarce {
        return Ok(nothing(false, Refusal::Full(room).to_string()));
    }
    let mut able: Vec<&Search> = state.searches.values().filter(|search| can_serve(search, worker)).collect();
    able.sort_by(|a, b| by_share(a, b));
    for search in able {
        let to = Grantee { id, worker, epoch: state.next_epoch(context.now) };
        if let Some(decision) = waiting(search, &to, context).or_else(|| new(search, &to, context)) {
            return Ok(decision.touch(seen));
        }
    }
    Ok(nothing(false, state.why_idle(worker)))
}

fn can_serve(search: &Search, worker: &Worker) -> bool {
    let declaration = &worker.registration.declaration;
    search.is_active() && search.spec.model.name == declaration.model && search.admits(declaration).is_ok()
}

/// Highest priority first; then fewest leases for the search's weight; then oldest.
fn by_share(a: &Search, b: &Search) -> std::cmp::Ordering {
    // Leases over weight, compared without a division.
    let share = |search: &Search, other: &Search| search.leased.len() as u64 * u64::from(other.spec.placement.weight);
    let priority = b.spec.placement.priority.cmp(&a.spec.placement.priority);
    priority.then(share(a, b).cmp(&share(b, a))).then(a.created.cmp(&b.created)).then(a.id.cmp(&b.id))
}

/// The worker that gets a candidate, and the epoch of the grant.
struct Grantee<'a> {
    id: &'a WorkerId,
    worker: &'a Worker,
    epoch: Epoch,
}

/// Grants a candidate from the search's queue.
fn waiting(search: &Search, to: &Grantee<'_>, context: &Context<'_>) -> Option<Decision> {
    search.pending.iter().find_map(|&id| {
        let candidate = search.candidate(id)?;
        grant(search, id, &candidate.lease, &candidate.proposal, to, context)
    })
}

/// Grants a new candidate, within the budget. The first grant binds the search to what the worker declared.
fn new(search: &Search, to: &Grantee<'_>, context: &Context<'_>) -> Option<Decision> {
    if search.is_rebuilding() || search.is_spent(search.open_prompts) {
        return None;
    }
    let candidate = CandidateId(search.candidates.len() as u64);
    let (mut facts, proposal) = match &search.bound {
        Some(bound) => (vec![], propose(search, bound, candidate, to.id)?),
        None => bind(search, to, context)?,
    };
    let mut decision = grant(search, candidate, &LeaseState::new(), &proposal, to, context)?;
    facts.push(Fact::CandidateCreated { search: search.id.clone(), candidate, proposal });
    decision.facts.splice(0..0, facts);
    Some(decision)
}

fn propose(search: &Search, bound: &Bound, candidate: CandidateId, worker: &WorkerId) -> Option<Proposal> {
    let alone = |measured: CandidateId| search.only_by(worker, measured);
    let unproven = |measured: CandidateId| search.is_unproven(measured);
    bound.breeder.ask_for(candidate, Witness { alone: &alone, unproven: &unproven })
}

/// The facts that bind a search to a worker's model, and the search's first candidate. The breeder is built when the facts
/// are applied.
fn bind(search: &Search, to: &Grantee<'_>, context: &Context<'_>) -> Option<(Vec<Fact>, Proposal)> {
    let declaration = &to.worker.registration.declaration;
    let model = ModelFacts {
        fingerprint: declaration.fingerprint.clone(),
        layout: Arc::new(declaration.layout.clone()),
        metrics: declaration.metrics.clone(),
        cost: declaration.cost.clone(),
    };
    let proposal = Breeder::first_proposal(&search.spec, &model.layout).ok()?;
    let (search, at) = (search.id.clone(), context.now);
    let bound = Fact::SearchBound { search: search.clone(), model, at };
    let running = Fact::SearchMoved { search, phase: SearchState::Running, reason: String::new(), at };
    Some((vec![bound, running], proposal))
}

/// The lease, if the candidate can be granted now.
fn grant(
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
    let granted = Fact::LeaseMoved { search: search.id.clone(), candidate, state: next, granted: context.now };
    Some(Decision::answer(Answer::Work { offer: Some(offer), draining: false, idle: String::new() }).fact(granted))
}
