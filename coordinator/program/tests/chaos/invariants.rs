//! What must hold, whatever happens. Each has a name, and that name is what a failing test says.
//!
//! Of one state: [`STATE`]. Of a state and a later one of the same store: [`SEQUENCE`]. Of a state and what callers were
//! told: [`acknowledged`]. Of what is in memory and what is stored: [`replays`].

use std::collections::BTreeSet;

use evocache::engine::{Candidate, Search, State};
use evocache::ports::{SearchState, Store};
use evocache_domain::lease::{RetryPolicy, State as Lease};
use evocache_domain::time::Timestamp;
use evocache_proto::domain::CandidateId;
use evocache_testkit::digest::digest;

use crate::ledger::Ledger;

type OfState = fn(&State) -> Result<(), String>;
type OfTwo = fn(&State, &State) -> Result<(), String>;

/// What holds for every state.
pub(crate) const STATE: &[(&str, OfState)] = &[
    ("one evaluation per candidate", one_evaluation_per_candidate),
    ("done is evaluated, and evaluated is done", done_is_evaluated),
    ("sets follow from leases", sets_follow_from_leases),
    ("prompts add up", prompts_add_up),
    ("grants ascend", grants_ascend),
    ("holders exist", holders_exist),
    ("a final search has nothing open", final_has_nothing_open),
    ("failures are counted", failures_are_counted),
    ("a budget is not exceeded by more than what was open", budget_is_kept),
];

/// What holds between a state and a later one, restarts in between or not.
pub(crate) const SEQUENCE: &[(&str, OfTwo)] = &[
    ("epochs only grow", epochs_only_grow),
    ("evaluations are only added", evaluations_are_only_added),
    ("candidates are only added", candidates_are_only_added),
    ("final stays final, unless the budget grows", final_stays_final),
    ("answers are remembered", answers_are_remembered),
];

/// The first invariant that the state breaks.
pub(crate) fn state(state: &State) -> Result<(), String> {
    STATE.iter().try_for_each(|(name, holds)| holds(state).map_err(|problem| format!("{name}: {problem}")))
}

/// The first invariant that the step from one state to the next breaks.
pub(crate) fn sequence(before: &State, after: &State) -> Result<(), String> {
    SEQUENCE.iter().try_for_each(|(name, holds)| holds(before, after).map_err(|problem| format!("{name}: {problem}")))
}

/// "Acknowledged is stored": every result that a worker was told is taken is there once, with the values that it sent, and
/// every other call that was answered has left what the answer said.
pub(crate) fn acknowledged(ledger: &Ledger, state: &State) -> Result<(), String> {
    let name = "acknowledged is stored";
    for search in &ledger.searches {
        if !state.searches.contains_key(search) {
            return Err(format!("{name}: search '{search}' is lost"));
        }
    }
    for worker in &ledger.workers {
        if !state.workers.contains_key(worker) {
            return Err(format!("{name}: worker '{worker}' is lost"));
        }
    }
    for result in &ledger.results {
        let key = &result.lease;
        let search = state.searches.get(&key.search.id).filter(|search| search.is(&key.search));
        let search = search.ok_or_else(|| format!("{name}: search '{}' is lost", key.search))?;
        let of: Vec<_> = search.evaluations.iter().filter(|e| e.candidate == key.candidate).collect();
        let [evaluation] = of[..] else {
            return Err(format!("{name}: {key} has {} evaluations, and one was acknowledged", of.len()));
        };
        let mut sent = result.measurement.clone();
        sent.thumbnails.clear();
        if evaluation.worker != result.worker || evaluation.measurement != sent {
            return Err(format!("{name}: {key} holds another result than the acknowledged one of {}", result.worker));
        }
    }
    for request in &ledger.requests {
        if !state.requests.contains_key(request) {
            return Err(format!("{name}: the answered call '{request}' is forgotten"));
        }
    }
    Ok(())
}

/// "Replay equals live": what is stored gives the state that is in memory, but for what is not stored on purpose.
pub(crate) fn replays(store: &dyn Store, live: &State, now: Timestamp, policy: &RetryPolicy) -> Result<(), String> {
    let name = "replay equals live";
    let facts = store.load().map_err(|e| format!("{name}: {e}"))?;
    let replayed = State::recover(facts, now, policy).map_err(|e| format!("{name}: {e}"))?;
    let (ours, theirs) = (digest(live), digest(&replayed));
    match ours.lines().zip(theirs.lines()).find(|(live, stored)| live != stored) {
        Some((live, stored)) => Err(format!("{name}:\n live   {live}\n stored {stored}")),
        None if ours.len() != theirs.len() => Err(format!("{name}: one has more than the other")),
        None => Ok(()),
    }
}

/// The last epoch that a candidate is known to have had.
pub(crate) fn epoch(lease: &Lease) -> Option<u64> {
    match lease {
        Lease::Pending { grants, .. } | Lease::Cancelled { grants } => {
            Some(grants.last().map_or(0, |grant| grant.epoch.0))
        }
        Lease::Leased { epoch, .. } => Some(epoch.0),
        // A late result is of an earlier grant than the last.
        Lease::Done { .. } | Lease::Failed { .. } => None,
    }
}

fn each(
    state: &State,
    mut holds: impl FnMut(&Search, CandidateId, &Candidate) -> Result<(), String>,
) -> Result<(), String> {
    for search in state.searches.values() {
        for (i, candidate) in search.candidates.iter().enumerate() {
            let id = CandidateId(i as u64);
            holds(search, id, candidate).map_err(|problem| format!("{}/{id}: {problem}", search.id))?;
        }
    }
    Ok(())
}

fn one_evaluation_per_candidate(state: &State) -> Result<(), String> {
    for search in state.searches.values() {
        let mut seen = BTreeSet::new();
        for (i, evaluation) in search.evaluations.iter().enumerate() {
            let id = evaluation.candidate;
            if !seen.insert(id) {
                return Err(format!("{}/{id} was counted twice", search.id));
            }
            if search.candidate(id).and_then(|c| c.evaluation) != Some(i) {
                return Err(format!("{}/{id} does not know its evaluation", search.id));
            }
        }
    }
    Ok(())
}

fn done_is_evaluated(state: &State) -> Result<(), String> {
    each(state, |search, _, candidate| {
        let by = candidate.evaluation.map(|i| &search.evaluations[i].worker);
        match &candidate.lease {
            Lease::Done { worker, .. } if by == Some(worker) => Ok(()),
            Lease::Done { worker, .. } => Err(format!("done by {worker}, evaluated by {by:?}")),
            other if by.is_some() => Err(format!("evaluated, and yet {other:?}")),
            _ => Ok(()),
        }
    })
}

fn sets_follow_from_leases(state: &State) -> Result<(), String> {
    each(state, |search, id, candidate| {
        let pending = matches!(candidate.lease, Lease::Pending { .. });
        let leased = matches!(candidate.lease, Lease::Leased { .. });
        if search.pending.contains(&id) == pending && search.leased.contains(&id) == leased {
            Ok(())
        } else {
            Err(format!("in the wrong set for {:?}", candidate.lease))
        }
    })
}

fn prompts_add_up(state: &State) -> Result<(), String> {
    for search in state.searches.values() {
        let prompts = |candidate: &Candidate| candidate.proposal.prompts.count(search.spec.prompts.len()) as u64;
        let sum = |holds: &dyn Fn(&Candidate) -> bool| -> u64 {
            search.candidates.iter().filter(|c| holds(c)).map(prompts).sum()
        };
        let (open, evaluated) = (sum(&|c| c.lease.is_open()), sum(&|c| c.evaluation.is_some()));
        if (search.open_prompts, search.totals.evaluated_prompts) != (open, evaluated) {
            let told = (search.open_prompts, search.totals.evaluated_prompts);
            return Err(format!("{}: {told:?} open and evaluated, should be {:?}", search.id, (open, evaluated)));
        }
    }
    Ok(())
}

fn grants_ascend(state: &State) -> Result<(), String> {
    each(state, |_, _, candidate| {
        let (grants, held) = match &candidate.lease {
            Lease::Pending { grants, .. } | Lease::Cancelled { grants } => (grants, u64::MAX),
            Lease::Leased { grants, epoch, .. } => (grants, epoch.0),
            Lease::Done { .. } | Lease::Failed { .. } => return Ok(()),
        };
        let ascending = grants.is_sorted_by(|a, b| a.epoch < b.epoch);
        if ascending && grants.last().is_none_or(|last| last.epoch.0 < held) {
            Ok(())
        } else {
            Err(format!("{grants:?}, then {held}"))
        }
    })
}

fn holders_exist(state: &State) -> Result<(), String> {
    each(state, |_, _, candidate| match &candidate.lease {
        Lease::Leased { worker, .. } if !state.workers.contains_key(worker) => Err(format!("no worker '{worker}'")),
        _ => Ok(()),
    })
}

fn final_has_nothing_open(state: &State) -> Result<(), String> {
    each(state, |search, _, candidate| {
        if search.phase.is_final() && candidate.lease.is_open() {
            return Err(format!("{:?} with {:?}", search.phase, candidate.lease));
        }
        Ok(())
    })
}

fn failures_are_counted(state: &State) -> Result<(), String> {
    for search in state.searches.values() {
        let failed = search.candidates.iter().filter(|c| matches!(c.lease, Lease::Failed { .. })).count() as u64;
        if failed != search.failed {
            return Err(format!("{}: {} counted, {failed} there", search.id, search.failed));
        }
    }
    Ok(())
}

fn budget_is_kept(state: &State) -> Result<(), String> {
    for search in state.searches.values() {
        let Some(most) = search.spec.budget.evaluations else { continue };
        let all = search.spec.prompts.len() as u64;
        // The last result may be of all prompts where one was left.
        if search.totals.evaluated_prompts >= most * all + all {
            return Err(format!(
                "{}: {} prompts for {most} evaluations of {all}",
                search.id, search.totals.evaluated_prompts
            ));
        }
    }
    Ok(())
}

fn epochs_only_grow(before: &State, after: &State) -> Result<(), String> {
    each(before, |search, id, candidate| {
        let later = after.searches.get(&search.id).and_then(|s| s.candidate(id));
        match (epoch(&candidate.lease), later.and_then(|c| epoch(&c.lease))) {
            (Some(was), Some(is)) if is < was => Err(format!("epoch {is} after {was}")),
            _ => Ok(()),
        }
    })
}

fn evaluations_are_only_added(before: &State, after: &State) -> Result<(), String> {
    for search in before.searches.values() {
        let Some(later) = after.searches.get(&search.id) else { continue };
        if !later.evaluations.starts_with(&search.evaluations) {
            let (was, is) = (search.evaluations.len(), later.evaluations.len());
            return Err(format!("{}: {was} evaluations, then {is} that do not begin with them", search.id));
        }
    }
    Ok(())
}

fn candidates_are_only_added(before: &State, after: &State) -> Result<(), String> {
    each(before, |search, id, candidate| {
        let Some(later) = after.searches.get(&search.id) else { return Ok(()) };
        match later.candidate(id) {
            Some(same) if same.proposal == candidate.proposal => Ok(()),
            Some(_) => Err("became another schedule".into()),
            None => Err("is gone".into()),
        }
    })
}

fn final_stays_final(before: &State, after: &State) -> Result<(), String> {
    for search in before.searches.values() {
        let Some(later) = after.searches.get(&search.id) else { continue };
        if search.phase.is_final() && later.phase != search.phase && !extended(search, later) {
            return Err(format!("{}: {:?}, then {:?}", search.id, search.phase, later.phase));
        }
    }
    each(before, |search, id, candidate| {
        let Some(later) = after.searches.get(&search.id) else { return Ok(()) };
        let reopened = matches!(candidate.lease, Lease::Cancelled { .. }) && extended(search, later);
        match later.candidate(id) {
            Some(later) if !candidate.lease.is_open() && later.lease != candidate.lease && !reopened => {
                Err(format!("{:?}, then {:?}", candidate.lease, later.lease))
            }
            _ => Ok(()),
        }
    })
}

/// Whether a search that had completed goes on with a larger budget.
fn extended(before: &Search, after: &Search) -> bool {
    before.phase == SearchState::Completed && after.spec.budget.evaluations > before.spec.budget.evaluations
}

fn answers_are_remembered(before: &State, after: &State) -> Result<(), String> {
    for (id, record) in &before.requests {
        match after.requests.get(id) {
            Some(same) if same == record => {}
            other => return Err(format!("call '{id}' was answered with {record:?}, then {other:?}")),
        }
    }
    Ok(())
}
