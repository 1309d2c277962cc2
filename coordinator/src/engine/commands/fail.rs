//! A worker could not evaluate a candidate: it returns to the queue, or it has failed.

use evocache_proto::domain::WorkerId;

use super::ending::fail_if_hopeless;
use super::lease::{failure, locate, moved, refused};
use crate::engine::command::{Answer, LeaseKey};
use crate::engine::decision::{Context, Decision};
use crate::engine::refusal::Refusal;
use crate::engine::state::{State, Touch};
use evocache_domain::lease::{self, Event, Transition};

pub(in crate::engine) fn fail(
    state: &State,
    worker: &WorkerId,
    key: &LeaseKey,
    reason: &str,
    retryable: bool,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let (search, candidate) = locate(state, key)?;
    let event = Event::Fail { worker: worker.clone(), epoch: key.epoch, retryable, message: reason.to_owned() };
    let next = match lease::step(&candidate.lease, &event, context.now, context.policy) {
        Ok(Transition::To(next)) => next,
        Ok(Transition::Unchanged) => return Ok(Decision::answer(Answer::Accepted)),
        Err(refusal) => return Err(refused(refusal, key)),
    };
    let failure = failure(&next);
    let decision = Decision::answer(Answer::Accepted)
        .touch(Touch::Seen { worker: worker.clone(), at: context.now })
        .touch(Touch::WorkerFailed { worker: worker.clone() })
        .fact(moved(search, key.candidate, candidate, next));
    Ok(match failure {
        Some(why) => fail_if_hopeless(search, 1, &why, decision, context),
        None => decision,
    })
}
