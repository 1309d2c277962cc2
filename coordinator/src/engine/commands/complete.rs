//! Accepts a measurement: the lease is done, the evaluation is stored, and the search ends if its budget is used up.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{CandidateId, Measurement, Profile, WorkerId};

use super::ending::{end, used_up};
use super::lease::{locate, moved, quarantine, refused};
use crate::engine::command::{Answer, LeaseKey};
use crate::engine::decision::{Context, Decision};
use crate::engine::refusal::Refusal;
use crate::engine::state::{Candidate, Search, State, Touch};
use crate::ports::{Fact, SearchState};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease::{self, Event, State as LeaseState, Transition};
use evocache_domain::time::Timestamp;

pub(in crate::engine) fn complete(
    state: &State,
    worker: &WorkerId,
    key: &LeaseKey,
    measurement: &Measurement,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let (search, candidate) = locate(state, key)?;
    let event = Event::Complete { worker: worker.clone(), epoch: key.epoch };
    let accepted = Decision::answer(Answer::Accepted).touch(Touch::Seen { worker: worker.clone(), at: context.now });
    let next = match lease::step(&candidate.lease, &event, context.now, context.policy) {
        Ok(Transition::To(next)) => next,
        // A repeat of this call.
        Ok(Transition::Unchanged) => {
            return match search.evaluation(key.candidate) {
                Some(first) if !first.measurement.has_numbers_of(measurement) => {
                    Err(Refusal::ResultDiffers(key.clone()))
                }
                Some(_) | None => Ok(accepted),
            };
        }
        Err(refusal) => return Err(refused(refusal, key)),
    };
    if let Some(reason) = quarantine(state, worker) {
        return Err(Refusal::Quarantined { worker: worker.clone(), reason });
    }
    check(search, candidate, key, measurement, context.now)?;
    let declaration = state.workers.get(worker).map(|w| &w.registration.declaration);
    let evaluation = Arc::new(Evaluation {
        candidate: key.candidate,
        schedule: candidate.proposal.schedule.clone(),
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
    let decision = accepted.fact(moved(search, key.candidate, candidate, next)).fact(Fact::Evaluated {
        search: search.id.clone(),
        sequence,
        evaluation,
    });
    // A result that is compared with those of others may put a worker into quarantine, which gives budget back. So a tick
    // judges first and then ends the search.
    if candidate.proposal.provenance.repeats().is_some() || !search.totals.trust.knows(worker) {
        return Ok(decision);
    }
    let device_time = search.totals.device_time.saturating_add(measurement.device_time);
    Ok(match used_up(search, search.prompts_of(key.candidate) as u64, device_time, context.now) {
        Some(reason) => end(search, SearchState::Completed, reason, decision, context),
        None => decision,
    })
}

/// Whether the measurement is plausible, complete, and can be scored.
fn check(
    search: &Search,
    candidate: &Candidate,
    key: &LeaseKey,
    measurement: &Measurement,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(bound) = &search.bound else {
        return Err(Refusal::Internal(format!("search '{}' has a lease but no model", search.id)));
    };
    let refuse = |problem: String| Refusal::Measurement(problem);
    let declared: Vec<&str> = bound.model.metrics.iter().map(|m| m.name.as_str()).collect();
    measurement
        .check(&declared, search.prompts_of(key.candidate), search.spec.plan.thumbnails)
        .and_then(|()| measurement.check_device_time(at_most(search, candidate, key, now)))
        .map_err(|e| refuse(e.to_string()))?;
    let fits = |p: &Profile| {
        let steps = search.spec.sampling.baseline_steps();
        key.candidate == CandidateId(0) && p.slots() == bound.model.layout.slots() && p.steps() == steps
    };
    if measurement.profile.as_ref().is_some_and(|p| !fits(p)) {
        return Err(refuse(
            "a calibration profile must be for candidate 0, with its steps and the layout's slots".into(),
        ));
    }
    let cache_hit_rate = candidate.proposal.schedule.cache_hit_rate();
    bound.breeder.objectives().check(measurement, cache_hit_rate).map_err(|e| refuse(e.to_string()))
}

/// The longest time that the worker can have spent on the candidate: since the grant, or since the search started if the
/// candidate was granted again in the meantime.
fn at_most(search: &Search, candidate: &Candidate, key: &LeaseKey, now: Timestamp) -> Duration {
    let granted = match &candidate.lease {
        LeaseState::Leased { epoch, .. } if *epoch == key.epoch => candidate.granted,
        _ => search.started.unwrap_or(search.created),
    };
    now.since(granted)
}

/// The number of the attempt that a result belongs to.
fn attempt(state: &LeaseState) -> u32 {
    match state {
        LeaseState::Leased { attempt, .. } => *attempt,
        // A late result: of the attempt before the one that waits.
        LeaseState::Pending { attempt, .. } => attempt.saturating_sub(1).max(1),
        LeaseState::Done { .. } | LeaseState::Failed { .. } | LeaseState::Cancelled { .. } => 1,
    }
}
