//! A worker returns a candidate that it has not evaluated: it waits in the queue again, and the attempt is not counted.

use evocache_proto::domain::WorkerId;

use super::lease::{locate, moved, refused};
use crate::engine::command::{Answer, LeaseKey};
use crate::engine::decision::{Context, Decision};
use crate::engine::refusal::Refusal;
use crate::engine::state::State;
use evocache_domain::lease::{self, Event, Transition};

pub(in crate::engine) fn release(
    state: &State,
    worker: &WorkerId,
    key: &LeaseKey,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let (search, candidate) = locate(state, key)?;
    let event = Event::Release { worker: worker.clone(), epoch: key.epoch };
    let done = Decision::answer(Answer::Accepted);
    match lease::step(&candidate.lease, &event, context.now, context.policy) {
        Ok(Transition::To(next)) => Ok(done.fact(moved(search, key.candidate, candidate, next))),
        Ok(Transition::Unchanged) => Ok(done),
        Err(refusal) => Err(refused(refusal, key)),
    }
}
