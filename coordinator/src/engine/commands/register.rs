//! Workers come and go: register, drain, deregister. Bounds how many the coordinator remembers.
//!
//! A worker that left without deregistering stays listed for a day. If its principal's limit or the total limit is reached, a
//! new registration replaces the worker that has been gone longest. How often a principal may register, the gate limits.

use std::sync::Arc;

use evocache_proto::domain::{Declaration, WorkerId};

use super::lease::release_all;
use crate::engine::command::Answer;
use crate::engine::decision::{Context, Decision};
use crate::engine::refusal::Refusal;
use crate::engine::state::{Standing, State, Worker};
use crate::ports::{Fact, Registration};

/// The most workers that the coordinator remembers, of all principals.
const WORKERS: usize = 16_384;
/// The most of one principal. Without tokens there is only one, which may have all.
const WORKERS_OF_ONE: usize = 4_096;

pub(in crate::engine) fn register(
    state: &State,
    declaration: &Arc<Declaration>,
    principal: &str,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    let worker = WorkerId::new(context.ids.unique()).map_err(|e| Refusal::Internal(e.to_string()))?;
    let registration =
        Registration { declaration: declaration.clone(), at: context.now, principal: principal.to_owned() };
    let mut decision = Decision::answer(Answer::Worker(worker.clone()));
    if let Some(gone) = make_room(state, principal, context)? {
        decision = decision.fact(Fact::WorkerForgotten { worker: gone.clone() });
    }
    Ok(decision.fact(Fact::WorkerRegistered { worker, registration }))
}

pub(in crate::engine) fn drain(state: &State, worker: &WorkerId) -> Result<Decision, Refusal> {
    known(state, worker)?;
    Ok(Decision::answer(Answer::Worker(worker.clone())).fact(Fact::WorkerDraining { worker: worker.clone() }))
}

pub(in crate::engine) fn deregister(
    state: &State,
    worker: &WorkerId,
    context: &Context<'_>,
) -> Result<Decision, Refusal> {
    known(state, worker)?;
    let decision = release_all(state, worker, Decision::answer(Answer::Worker(worker.clone())), context);
    Ok(decision.fact(Fact::WorkerForgotten { worker: worker.clone() }))
}

fn known(state: &State, worker: &WorkerId) -> Result<(), Refusal> {
    if state.workers.contains_key(worker) { Ok(()) } else { Err(Refusal::NoWorker(worker.clone())) }
}

/// The worker to forget so that one more of this principal fits, if one must go.
fn make_room<'a>(state: &'a State, principal: &str, context: &Context<'_>) -> Result<Option<&'a WorkerId>, Refusal> {
    if state.workers.len() < WORKERS_OF_ONE {
        return Ok(None);
    }
    let most = if principal.is_empty() { WORKERS } else { WORKERS_OF_ONE };
    let own = |worker: &Worker| worker.registration.principal == principal;
    let of_one = state.workers.values().filter(|worker| own(worker)).count();
    let (one_is_full, all_are_full) = (of_one >= most, state.workers.len() >= WORKERS);
    if !one_is_full && !all_are_full {
        return Ok(None);
    }
    let gone = longest_gone(state, context, |worker| !one_is_full || own(worker));
    gone.map(Some).ok_or(Refusal::TooManyWorkers(if one_is_full { most } else { WORKERS }))
}

/// Of the workers that are gone, the one that was silent longest.
fn longest_gone<'a>(state: &'a State, context: &Context<'_>, among: impl Fn(&Worker) -> bool) -> Option<&'a WorkerId> {
    let gone = |worker: &Worker| worker.standing(context.now, context.policy.ttl) == Standing::Gone;
    let gone = state.workers.iter().filter(|(_, worker)| among(worker) && gone(worker));
    gone.min_by_key(|(id, worker)| (worker.seen, *id)).map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evocache_proto::domain::Layout;

    use super::*;
    use crate::ports::IdSource;
    use evocache_domain::lease::RetryPolicy;
    use evocache_domain::time::Timestamp;

    struct NoIds;

    impl IdSource for NoIds {
        fn unique(&self) -> String {
            String::new()
        }
    }

    /// Registers `count` workers of a principal, one per millisecond.
    fn register(state: &mut State, principal: &str, count: usize) {
        let declaration = Arc::new(Declaration {
            name: "w".into(),
            device: "cpu".into(),
            software: "tests".into(),
            model: "m".into(),
            fingerprint: "f".into(),
            layout: Layout::pixart(1).unwrap(),
            forecast: false,
            guidance_decisions: false,
            profiles: false,
            grids: false,
            memory_bytes: 0,
            labels: Default::default(),
            metrics: vec![],
            cost: None,
        });
        for i in 0..count {
            let worker = WorkerId::new(format!("{principal}-{i}")).unwrap();
            let (declaration, at) = (declaration.clone(), Timestamp(1000 + i as u64));
            let registration = Registration { declaration, at, principal: principal.into() };
            state.apply(Fact::WorkerRegistered { worker, registration }).unwrap();
        }
    }

    #[test]
    fn registrations_are_bounded_and_workers_that_are_gone_make_room() {
        let mut state = State::default();
        register(&mut state, "a", WORKERS_OF_ONE);
        let ttl = Duration::from_secs(60);
        let policy = RetryPolicy { max_attempts: 1, base: ttl, cap: ttl, ttl };
        let room = |state: &State, principal: &str, now: u64| {
            let context = Context { now: Timestamp(now), policy: &policy, ids: &NoIds, scarce: None };
            make_room(state, principal, &context).map(|gone| gone.cloned())
        };
        let (soon, late) = (6000, 6000 + ttl.as_millis() as u64);
        assert_eq!(room(&state, "a", soon), Err(Refusal::TooManyWorkers(WORKERS_OF_ONE)));
        assert_eq!(room(&state, "b", soon), Ok(None), "each principal has its own limit");
        let first = WorkerId::new("a-0").unwrap();
        assert_eq!(room(&state, "a", late), Ok(Some(first.clone())));
        for principal in ["b", "c", "d"] {
            register(&mut state, principal, WORKERS_OF_ONE);
        }
        assert_eq!(room(&state, "e", soon), Err(Refusal::TooManyWorkers(WORKERS)));
        assert_eq!(room(&state, "e", late), Ok(Some(first)), "of all workers, the one that has been gone longest");
    }
}
