//! Decides how many workers are kept in mind: a bound on what whoever registers for ever can cost. Pure.
//!
//! A worker that has left without a word is remembered for a day, for people. Where its principal has no room left, or nobody
//! has, the one that was silent longest is forgotten for the new one. Absent: how often somebody may register, which is the
//! gate's.

use std::time::Duration;

use evocache_proto::domain::WorkerId;

use super::command::Refusal;
use super::decide::{Context, Decision};
use super::standing::Standing;
use super::state::{State, Worker};
use crate::ports::Fact;

/// Workers that are kept in mind, of all principals.
pub(super) const WORKERS: usize = 16_384;
/// Of one principal. Without tokens there is only one, who may have all.
pub(super) const WORKERS_OF_ONE: usize = 4_096;

/// Makes room for one more worker of a principal.
pub(super) fn make_room(
    state: &State,
    principal: &str,
    context: &Context<'_>,
    decision: Decision,
) -> Result<Decision, Refusal> {
    if state.workers.len() < WORKERS_OF_ONE {
        return Ok(decision);
    }
    let most = if principal.is_empty() { WORKERS } else { WORKERS_OF_ONE };
    let own = |worker: &Worker| worker.registration.principal == principal;
    let of_one = state.workers.values().filter(|worker| own(worker)).count();
    let (one_is_full, all_are_full) = (of_one >= most, state.workers.len() >= WORKERS);
    if !one_is_full && !all_are_full {
        return Ok(decision);
    }
    match longest_gone(state, context.now, context.policy.ttl, |worker| !one_is_full || own(worker)) {
        Some(worker) => Ok(decision.fact(Fact::WorkerForgotten { worker: worker.clone() })),
        None => Err(Refusal::TooManyWorkers(if one_is_full { most } else { WORKERS })),
    }
}

/// Of the workers that have left without a word, the one that was heard of longest ago.
fn longest_gone(
    state: &State,
    now: evocache_domain::time::Timestamp,
    silence: Duration,
    among: impl Fn(&Worker) -> bool,
) -> Option<&WorkerId> {
    let gone = |worker: &Worker| worker.standing(now, silence) == Standing::Gone;
    let gone = state.workers.iter().filter(|(_, worker)| among(worker) && gone(worker));
    gone.min_by_key(|(id, worker)| (worker.seen, *id)).map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evocache_proto::domain::{Declaration, Layout};

    use super::*;
    use crate::ports::{IdSource, Registration};
    use evocache_domain::lease::RetryPolicy;
    use evocache_domain::time::Timestamp;

    struct NoIds;

    impl IdSource for NoIds {
        fn unique(&self) -> String {
            String::new()
        }
    }

    /// So many workers of a principal, each registered a millisecond after the one before.
    fn register(state: &mut State, principal: &str, count: usize) {
        let declaration = Arc::new(Declaration {
            name: "w".into(),
            device: "cpu".into(),
            software: "tests".into(),
            model: "m".into(),
            fingerprint: "f".into(),
            layout: Layout::pixart(1).unwrap(),
            forecast: false,
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
    fn whoever_registers_for_ever_is_refused_and_those_who_left_make_room() {
        let mut state = State::default();
        register(&mut state, "a", WORKERS_OF_ONE);
        let ttl = Duration::from_secs(60);
        let policy = RetryPolicy { max_attempts: 1, base: ttl, cap: ttl, ttl };
        let room = |state: &State, principal: &str, now: u64| {
            let context = Context { now: Timestamp(now), policy: &policy, ids: &NoIds, scarce: None };
            make_room(state, principal, &context, Decision::default()).map(|decision| decision.facts)
        };
        let (soon, late) = (6000, 6000 + ttl.as_millis() as u64);
        assert_eq!(room(&state, "a", soon), Err(Refusal::TooManyWorkers(WORKERS_OF_ONE)));
        assert_eq!(room(&state, "b", soon), Ok(vec![]), "others have theirs");
        let first = WorkerId::new("a-0").unwrap();
        assert_eq!(room(&state, "a", late), Ok(vec![Fact::WorkerForgotten { worker: first.clone() }]));
        for principal in ["b", "c", "d"] {
            register(&mut state, principal, WORKERS_OF_ONE);
        }
        assert_eq!(room(&state, "e", soon), Err(Refusal::TooManyWorkers(WORKERS)));
        assert_eq!(
            room(&state, "e", late),
            Ok(vec![Fact::WorkerForgotten { worker: first }]),
            "of all, the one longest gone"
        );
    }
}
