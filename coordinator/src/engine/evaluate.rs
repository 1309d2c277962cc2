//! Decides what becomes of a leased candidate: renewed, completed, failed, released, expired. Pure.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{CandidateId, Measurement, Profile, SearchId, WorkerId};

use super::command::{Answer, LeaseKey, Refusal, Renewal};
use super::decide::{Context, Decision, end, find};
use super::judge::judge;
use super::search::{Candidate, Search};
use super::state::{State, Touch};
use crate::ports::{Fact, Phase};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease::{self, Event, State as LeaseState, Transition};
use evocache_domain::time::Timestamp;

/// A search of which this many candidates failed, and no fewer than succeeded, cannot go on.
pub const HOPELESS_FAILURES: u64 = 10;

/// Keeps leases alive. Each answer stands for itself: one that is lost does not spoil the others.
pub(super) fn renew(
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
        let candidate = of(state, key);
        let ttl = match candidate.map(|c| lease::step(&c.lease, &event, context.now, context.policy)) {
            Some(Ok(Transition::To(state))) => {
                let (search, candidate) = (key.search.id.clone(), key.candidate);
                touches.push(Touch::Renewed { search, candidate, state });
                Some(context.policy.ttl)
            }
            // Ended but not yet noticed by the clock, or given back to the queue: the result is still welcome.
            Some(Err(lease::Refusal::Expired { .. })) => Some(context.policy.ttl),
            Some(Err(lease::Refusal::Superseded)) if welcome(state, worker, key) => Some(context.policy.ttl),
            _ => None,
        };
        renewals.push(Renewal { lease: key.clone(), ttl });
    }
    let answer = Answer::Renewed { leases: renewals, draining: entry.draining };
    Ok(Decision { facts: vec![], touches, answer: Some(answer) })
}

/// Whether a result of this superseded lease would still be taken: nobody has finished, and nobody else is at it.
fn welcome(state: &State, worker: &WorkerId, key: &LeaseKey) -> bool {
    of(state, key).is_some_and(|c| {
        matches!(&c.lease, LeaseState::Pending { grants, .. }
            if grants.iter().any(|g| g.epoch == key.epoch && &g.worker == worker))
    })
}

/// Takes a result: the lease is done, the evaluation stored, and the search over when its budget is used up.
pub(super) fn complete(
    state: &State,
    worker: &WorkerId,
    key: &LeaseKey,
    measurement: &Measurement,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let (search, candidate) = locate(state, key)?;
    let event = Event::Complete { worker: worker.clone(), epoch: key.epoch };
    let seen = Touch::Seen { worker: worker.clone(), at: context.now };
    let next = match lease::step(&candidate.lease, &event, context.now, context.policy) {
        Ok(Transition::To(next)) => next,
        Ok(Transition::Unchanged) => {
            return match search.evaluation(key.candidate) {
                Some(first) if !first.measurement.has_numbers_of(measurement) => {
                    Err(Refusal::ResultDiffers(key.clone()))
                }
                Some(_) | None => Ok(Decision::answer(Answer::Accepted).touch(seen)),
            };
        }
        Err(refusal) => return Err(refused(refusal, key)),
    };
    if let Some(reason) = quarantine(state, worker) {
        return Err(Refusal::Quarantined { worker: worker.clone(), reason });
    }
    let Some((model, breeder)) = &search.bound else {
        return Err(Refusal::Internal(format!("search '{}' has a lease but no model", search.id)));
    };
    let declared: Vec<&str> = model.metrics.iter().map(|m| m.name.as_str()).collect();
    let schedule = &candidate.proposal.schedule;
    measurement
        .check(&declared, search.prompts_of(key.candidate), search.spec.plan.thumbnails)
        .and_then(|()| measurement.check_device_time(lasted(search, candidate, key, context.now)))
        .map_err(|e| Refusal::Measurement(e.to_string()))?;
    let fits = |p: &Profile| {
        let steps = search.spec.sampling.baseline_steps();
        key.candidate == CandidateId(0) && p.slots() == model.layout.slots() && p.steps() == steps
    };
    if measurement.profile.as_ref().is_some_and(|p| !fits(p)) {
        let problem = "a calibration profile is for candidate 0, with its steps and the layout's slots";
        return Err(Refusal::Measurement(problem.into()));
    }
    breeder
        .objectives()
        .score(measurement, schedule.cache_hit_rate())
        .map_err(|e| Refusal::Measurement(e.to_string()))?;
    let declaration = state.workers.get(worker).map(|w| &w.registration.declaration);
    let evaluation = Arc::new(Evaluation {
        candidate: key.candidate,
        schedule: schedule.clone(),
        provenance: candidate.proposal.provenance.clone(),
        measurement: measurement.clone(),
        worker: worker.clone(),
        worker_name: declaration.map_or_else(String::new, |d| d.name.clone()),
        device: declaration.map_or_else(String::new, |d| d.device.clone()),
        started: candidate.granted,
        finished: context.now,
        attempt: attempt(&candidate.lease),
    });
    let sequence = search.evaluations.len() as u64;
    let decision = Decision::answer(Answer::Accepted)
        .touch(seen)
        .fact(moved(search, key.candidate, candidate, next))
        .fact(Fact::Evaluated { search: search.id.clone(), sequence, evaluation });
    let spent = search.device_time.saturating_add(measurement.device_time);
    // What is compared with the results of others may have to be judged first; the clock ends the search then.
    let compared = candidate.proposal.provenance.repeats().is_some() || !search.trust.knows(worker);
    Ok(match exhausted(search, search.prompts_of(key.candidate) as u64, spent, context.now) {
        Some(reason) if !compared => end(search, Phase::Completed, reason, decision, context),
        Some(_) | None => decision,
    })
}

/// Why the worker is not believed, if it is not.
pub(super) fn quarantine(state: &State, worker: &WorkerId) -> Option<String> {
    state.workers.get(worker)?.quarantine.clone()
}

/// The candidate could not be evaluated: back to the queue, or given up.
pub(super) fn fail(
    state: &State,
    worker: &WorkerId,
    key: &LeaseKey,
    reason: &str,
    retryable: bool,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let (search, candidate) = locate(state, key)?;
    let message = reason.to_owned();
    let event = Event::Fail { worker: worker.clone(), epoch: key.epoch, retryable, message };
    match lease::step(&candidate.lease, &event, context.now, context.policy) {
        Ok(Transition::To(next)) => {
            let mut decision = Decision::answer(Answer::Accepted)
                .touch(Touch::Seen { worker: worker.clone(), at: context.now })
                .touch(Touch::WorkerFailed { worker: worker.clone() });
            let gave_up = gave_up(&next);
            decision = decision.fact(moved(search, key.candidate, candidate, next));
            if let Some(why) = gave_up {
                decision = hopeless(search, 1, &why, decision, context);
            }
            Ok(decision)
        }
        Ok(Transition::Unchanged) => Ok(Decision::answer(Answer::Accepted)),
        Err(refusal) => Err(refused(refusal, key)),
    }
}

/// The worker leaves: the candidate goes back to the queue as if it had never been handed out.
pub(super) fn release(
    state: &State,
    worker: &WorkerId,
    key: &LeaseKey,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let (search, candidate) = locate(state, key)?;
    let event = Event::Release { worker: worker.clone(), epoch: key.epoch };
    match lease::step(&candidate.lease, &event, context.now, context.policy) {
        Ok(Transition::To(next)) => {
            Ok(Decision::answer(Answer::Accepted).fact(moved(search, key.candidate, candidate, next)))
        }
        Ok(Transition::Unchanged) => Ok(Decision::answer(Answer::Accepted)),
        Err(refusal) => Err(refused(refusal, key)),
    }
}

/// Takes back all that a worker has, as if it had never been handed out.
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

/// Expires leases whose time is over, and ends searches whose budget is.
pub(super) fn tick(state: &State, context: &Context<'_>) -> Decision {
    if let Some(decision) = judge(state, context) {
        // What it changes is for the next look at the clock.
        return decision;
    }
    let mut decision = Decision::default();
    for search in state.searches.values() {
        let (mut failures, mut last) = (0, String::new());
        for &id in &search.leased {
            let Some(candidate) = search.candidate(id) else { continue };
            if let Ok(Transition::To(next)) = lease::step(&candidate.lease, &Event::Expire, context.now, context.policy)
            {
                if let Some(why) = gave_up(&next) {
                    (failures, last) = (failures + 1, why);
                }
                decision = decision.fact(moved(search, id, candidate, next));
            }
        }
        // What a search that is behind has used up is not known.
        if search.phase != Phase::Running || search.is_behind() {
            continue;
        }
        if let Some(reason) = exhausted(search, 0, search.device_time, context.now) {
            decision = end(search, Phase::Completed, reason, decision, context);
        } else if failures > 0 {
            decision = hopeless(search, failures, &last, decision, context);
        } else if search.pending.is_empty() && search.leased.is_empty() && nothing_left(search) {
            decision = end(search, Phase::Completed, "no schedule left to try", decision, context);
        }
    }
    decision
}

/// Whether there is no candidate to propose, and none will be.
pub(super) fn nothing_left(search: &Search) -> bool {
    let next = CandidateId(search.candidates.len() as u64);
    search.bound.as_ref().is_some_and(|(_, breeder)| !breeder.is_thinking() && breeder.ask(next).is_none())
}

fn locate<'a>(state: &'a State, key: &LeaseKey) -> Result<(&'a Search, &'a Candidate), Refusal> {
    let search = find(state, &key.search.id)?;
    // Another search may have the id by now: the lease was of the one before.
    let candidate = search.candidate(key.candidate).filter(|_| search.is(&key.search));
    Ok((search, candidate.ok_or_else(|| Refusal::Superseded(key.clone()))?))
}

/// The candidate that a lease is of, if it is there.
fn of<'a>(state: &'a State, key: &LeaseKey) -> Option<&'a Candidate> {
    locate(state, key).ok().map(|(_, candidate)| candidate)
}

/// How long ago a worker got the candidate; at most so long, where it was granted again since.
fn lasted(search: &Search, candidate: &Candidate, key: &LeaseKey, now: Timestamp) -> Duration {
    let granted = match &candidate.lease {
        LeaseState::Leased { epoch, .. } if *epoch == key.epoch => candidate.granted,
        _ => search.started.unwrap_or(search.created),
    };
    now.since(granted)
}

/// The lease of a candidate has another state.
pub(super) fn moved(search: &Search, candidate: CandidateId, entry: &Candidate, state: LeaseState) -> Fact {
    Fact::LeaseMoved { search: SearchId::clone(&search.id), candidate, state, granted: entry.granted }
}

fn refused(refusal: lease::Refusal, key: &LeaseKey) -> Refusal {
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

fn attempt(state: &LeaseState) -> u32 {
    match state {
        LeaseState::Leased { attempt, .. } => *attempt,
        // A late result: it is the attempt before the one that waits.
        LeaseState::Pending { attempt, .. } => attempt.saturating_sub(1).max(1),
        LeaseState::Done { .. } | LeaseState::Failed { .. } | LeaseState::Cancelled { .. } => 1,
    }
}

fn gave_up(state: &LeaseState) -> Option<String> {
    match state {
        LeaseState::Failed { reason } => Some(reason.to_string()),
        LeaseState::Pending { .. }
        | LeaseState::Leased { .. }
        | LeaseState::Done { .. }
        | LeaseState::Cancelled { .. } => None,
    }
}

/// Why a budget is used up when `more` prompts are evaluated.
fn exhausted(search: &Search, more: u64, device_time: Duration, now: Timestamp) -> Option<&'static str> {
    let budget = &search.spec.budget;
    if search.is_behind() {
        // The clock ends it when it is known what it has used up.
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

/// Ends a search in which hardly anything can be evaluated, rather than breeding failures for ever.
fn hopeless(search: &Search, more: u64, last: &str, decision: Decision, context: &Context<'_>) -> Decision {
    let failed = search.failed + more;
    if failed < HOPELESS_FAILURES || failed < search.evaluations.len() as u64 {
        return decision;
    }
    let reason = format!("{failed} candidates failed, {} succeeded; the last: {last}", search.evaluations.len());
    end(search, Phase::Failed, &reason, decision, context)
}
