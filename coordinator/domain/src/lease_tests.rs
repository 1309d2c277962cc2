//! Tests of the lease machine: each row of its table, each refusal, and random histories.

use proptest::prelude::*;

use super::*;

const POLICY: RetryPolicy = RetryPolicy {
    max_attempts: 3,
    base: Duration::from_millis(100),
    cap: Duration::from_millis(250),
    ttl: Duration::from_millis(1000),
};

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn at(now: u64, state: &State, event: Event) -> Result<Transition, Refusal> {
    step(state, &event, Timestamp(now), &POLICY)
}

/// The next state of an event that must be accepted.
fn next(now: u64, state: &State, event: Event) -> State {
    match at(now, state, event).unwrap() {
        Transition::To(state) => state,
        Transition::Unchanged => state.clone(),
    }
}

fn grant(name: &str, epoch: u64) -> Event {
    Event::Grant { worker: worker(name), epoch: Epoch(epoch) }
}

fn renew(name: &str, epoch: u64) -> Event {
    Event::Renew { worker: worker(name), epoch: Epoch(epoch) }
}

fn complete(name: &str, epoch: u64) -> Event {
    Event::Complete { worker: worker(name), epoch: Epoch(epoch) }
}

fn release(name: &str, epoch: u64) -> Event {
    Event::Release { worker: worker(name), epoch: Epoch(epoch) }
}

fn fail(name: &str, epoch: u64, retryable: bool) -> Event {
    Event::Fail { worker: worker(name), epoch: Epoch(epoch), retryable, message: "out of memory".into() }
}

fn leased(name: &str, epoch: u64, deadline: u64, attempt: u32, earlier: &[(&str, u64)]) -> State {
    State::Leased {
        worker: worker(name),
        epoch: Epoch(epoch),
        deadline: Timestamp(deadline),
        attempt,
        grants: grants(earlier),
    }
}

fn pending(attempt: u32, not_before: u64, earlier: &[(&str, u64)]) -> State {
    State::Pending { attempt, not_before: Timestamp(not_before), grants: grants(earlier) }
}

fn grants(list: &[(&str, u64)]) -> Vec<Grant> {
    list.iter().map(|&(name, epoch)| Grant { epoch: Epoch(epoch), worker: worker(name) }).collect()
}

fn done(name: &str, epoch: u64) -> State {
    State::Done { epoch: Epoch(epoch), worker: worker(name) }
}

fn cancelled(earlier: &[(&str, u64)]) -> State {
    State::Cancelled { grants: grants(earlier) }
}

fn failed() -> State {
    State::Failed { reason: Failure::Expired { attempts: 3 } }
}

#[test]
fn a_pending_candidate_is_granted_with_a_larger_epoch() {
    assert_eq!(next(5, &State::new(), grant("a", 1)), leased("a", 1, 1005, 1, &[]));
    let retried = pending(2, 7, &[("a", 5)]);
    assert_eq!(next(7, &retried, grant("b", 9)), leased("b", 9, 1007, 2, &[("a", 5)]));
    for used in [4, 5] {
        assert_eq!(at(7, &retried, grant("b", used)), Err(Refusal::Epoch(Epoch(used))));
    }
}

#[test]
fn a_candidate_in_back_off_is_not_granted() {
    assert_eq!(at(6, &pending(2, 7, &[]), grant("a", 1)), Err(Refusal::TooEarly { not_before: Timestamp(7) }));
}

#[test]
fn a_held_or_final_candidate_is_not_granted() {
    assert_eq!(at(9, &leased("a", 1, 5, 1, &[]), grant("b", 9)), Err(Refusal::Held));
    assert_eq!(at(9, &done("a", 1), grant("b", 9)), Err(Refusal::Finished));
    assert_eq!(at(9, &failed(), grant("b", 9)), Err(Refusal::Finished));
    assert_eq!(at(9, &cancelled(&[]), grant("b", 9)), Err(Refusal::Cancelled));
}

#[test]
fn the_holder_renews_until_the_deadline_and_not_after() {
    let state = leased("a", 1, 1000, 1, &[]);
    assert_eq!(next(1000, &state, renew("a", 1)), leased("a", 1, 2000, 1, &[]));
    assert_eq!(at(1001, &state, renew("a", 1)), Err(Refusal::Expired { deadline: Timestamp(1000) }));
}

#[test]
fn only_the_holder_renews() {
    let state = leased("b", 2, 1000, 1, &[("a", 1)]);
    for event in [renew("a", 2), renew("b", 1), renew("a", 1), renew("b", 3)] {
        assert_eq!(at(1, &state, event), Err(Refusal::Superseded));
    }
    for state in [State::new(), done("a", 1), failed()] {
        assert_eq!(at(1, &state, renew("a", 1)), Err(Refusal::Superseded));
    }
    assert_eq!(at(1, &cancelled(&[]), renew("a", 1)), Err(Refusal::Cancelled));
}

#[test]
fn an_expired_lease_is_retried_after_a_back_off_until_attempts_are_used_up() {
    let state = leased("a", 1, 1000, 1, &[]);
    assert_eq!(at(1000, &state, Event::Expire), Ok(Transition::Unchanged));
    assert_eq!(next(1001, &state, Event::Expire), pending(2, 1101, &[("a", 1)]));
    let last = leased("a", 3, 1000, 3, &[]);
    assert_eq!(next(1001, &last, Event::Expire), failed());
}

#[test]
fn a_late_timer_changes_nothing() {
    for state in [State::new(), done("a", 1), failed(), cancelled(&[])] {
        assert_eq!(at(9999, &state, Event::Expire), Ok(Transition::Unchanged));
    }
}

#[test]
fn the_holder_completes_even_past_the_deadline() {
    assert_eq!(next(10, &leased("a", 1, 1000, 1, &[]), complete("a", 1)), done("a", 1));
    assert_eq!(next(1500, &leased("a", 1, 1000, 1, &[]), complete("a", 1)), done("a", 1));
}

#[test]
fn a_late_result_is_accepted_while_the_candidate_is_open() {
    assert_eq!(next(9, &pending(2, 50, &[("a", 1)]), complete("a", 1)), done("a", 1));
    assert_eq!(next(9, &leased("b", 2, 50, 2, &[("a", 1)]), complete("a", 1)), done("a", 1));
}

#[test]
fn a_result_without_a_grant_is_refused() {
    for event in [complete("a", 2), complete("b", 1), complete("c", 3)] {
        assert_eq!(at(9, &pending(2, 50, &[("a", 1)]), event.clone()), Err(Refusal::Superseded));
        assert_eq!(at(9, &leased("b", 2, 50, 2, &[("a", 1)]), event), Err(Refusal::Superseded));
    }
    assert_eq!(at(9, &State::new(), complete("a", 1)), Err(Refusal::Superseded));
}

#[test]
fn a_repeated_result_gets_the_same_answer_and_a_different_one_is_refused() {
    assert_eq!(at(9, &done("a", 1), complete("a", 1)), Ok(Transition::Unchanged));
    for event in [complete("a", 2), complete("b", 1), fail("a", 1, true), release("a", 1)] {
        assert_eq!(at(9, &done("a", 1), event), Err(Refusal::Superseded));
    }
    assert_eq!(at(9, &failed(), complete("a", 1)), Err(Refusal::Superseded));
    assert_eq!(at(9, &cancelled(&[]), complete("a", 1)), Err(Refusal::Cancelled));
}

#[test]
fn a_retryable_failure_is_retried() {
    let state = leased("a", 1, 1000, 1, &[]);
    assert_eq!(next(9, &state, fail("a", 1, true)), pending(2, 109, &[("a", 1)]));
    let reason = |attempts| Failure::Reported { attempts, message: "out of memory".into() };
    assert_eq!(next(9, &state, fail("a", 1, false)), State::Failed { reason: reason(1) });
    assert_eq!(next(9, &leased("a", 3, 1000, 3, &[]), fail("a", 3, true)), State::Failed { reason: reason(3) });
    for state in [leased("b", 2, 50, 2, &[("a", 1)]), pending(2, 50, &[("a", 1)]), failed()] {
        assert_eq!(at(9, &state, fail("a", 1, true)), Err(Refusal::Superseded));
    }
    assert_eq!(at(9, &cancelled(&[]), fail("a", 1, true)), Err(Refusal::Cancelled));
}

#[test]
fn a_released_candidate_is_free_at_once_and_keeps_its_attempts() {
    assert_eq!(next(9, &leased("a", 1, 1000, 2, &[]), release("a", 1)), pending(2, 9, &[("a", 1)]));
    for state in [leased("b", 2, 50, 2, &[("a", 1)]), pending(2, 50, &[("a", 1)]), failed()] {
        assert_eq!(at(9, &state, release("a", 1)), Err(Refusal::Superseded));
    }
    assert_eq!(at(9, &cancelled(&[]), release("a", 1)), Err(Refusal::Cancelled));
}

#[test]
fn only_open_candidates_can_be_cancelled() {
    assert_eq!(next(9, &State::new(), Event::Cancel), cancelled(&[]));
    assert_eq!(next(9, &leased("b", 2, 1000, 2, &[("a", 1)]), Event::Cancel), cancelled(&[("a", 1), ("b", 2)]));
    for state in [done("a", 1), failed(), cancelled(&[])] {
        assert_eq!(at(9, &state, Event::Cancel), Ok(Transition::Unchanged));
    }
}

#[test]
fn a_cancelled_candidate_can_be_reopened_and_keeps_its_grants() {
    let reopened = next(9, &cancelled(&[("a", 1)]), Event::Reopen);
    assert_eq!(reopened, pending(1, 9, &[("a", 1)]));
    assert_eq!(next(9, &reopened, complete("a", 1)), done("a", 1), "a late result is accepted");
    assert_eq!(at(9, &reopened, grant("b", 1)), Err(Refusal::Epoch(Epoch(1))));
    for state in [pending(2, 50, &[]), leased("a", 1, 1000, 1, &[]), done("a", 1), failed()] {
        assert_eq!(at(9, &state, Event::Reopen), Ok(Transition::Unchanged));
    }
}

#[test]
fn a_restart_gives_live_leases_their_time_back_and_touches_nothing_else() {
    let restarted = leased("b", 2, 50, 2, &[("a", 1)]).after_restart(Timestamp(5000), &POLICY);
    assert_eq!(restarted, leased("b", 2, 6000, 2, &[("a", 1)]));
    for state in [pending(2, 50, &[("a", 1)]), done("a", 1), failed(), cancelled(&[])] {
        assert_eq!(state.clone().after_restart(Timestamp(5000), &POLICY), state);
    }
}

#[test]
fn the_back_off_doubles_up_to_its_cap() {
    let waits = [1, 2, 3, 33, u32::MAX].map(|attempt| POLICY.back_off(attempt).as_millis());
    assert_eq!(waits, [100, 200, 250, 250, 250]);
}

#[test]
fn endless_grants_and_releases_do_not_grow_the_record() {
    let mut state = State::new();
    for epoch in 1..=100 {
        state = next(epoch, &state, grant("a", epoch));
        state = next(epoch, &state, release("a", epoch));
    }
    let State::Pending { attempt, grants, .. } = state else { panic!("{state:?}") };
    assert_eq!((attempt, grants.len(), grants.last().unwrap().epoch), (1, MAX_GRANTS, Epoch(100)));
}

fn any_event() -> impl Strategy<Value = Event> {
    let who = || prop_oneof![Just(worker("a")), Just(worker("b")), Just(worker("c"))];
    let epoch = || (1u64..6).prop_map(Epoch);
    prop_oneof![
        4 => (who(), epoch()).prop_map(|(worker, epoch)| Event::Grant { worker, epoch }),
        2 => (who(), epoch()).prop_map(|(worker, epoch)| Event::Renew { worker, epoch }),
        4 => Just(Event::Expire),
        1 => (who(), epoch()).prop_map(|(worker, epoch)| Event::Complete { worker, epoch }),
        2 => (who(), epoch(), any::<bool>()).prop_map(|(worker, epoch, retryable)| Event::Fail {
            worker, epoch, retryable, message: "no".into()
        }),
        2 => (who(), epoch()).prop_map(|(worker, epoch)| Event::Release { worker, epoch }),
        1 => Just(Event::Cancel),
        1 => Just(Event::Reopen),
    ]
}

proptest! {
    #[test]
    fn every_history_keeps_the_invariants(history in proptest::collection::vec((any_event(), 0u64..800), 1..60)) {
        let (mut state, mut now, mut highest) = (State::new(), 0, Epoch(0));
        let mut granted: Vec<Grant> = vec![];
        for (event, pause) in history {
            now += pause;
            let Ok(Transition::To(next)) = at(now, &state, event.clone()) else { continue };
            let reopened = matches!((&state, &event), (State::Cancelled { .. }, Event::Reopen));
            prop_assert!(state.is_open() || reopened, "a final state changed: {:?} by {:?}", state, event);
            if let State::Leased { worker, epoch, deadline, attempt, .. } = &next {
                prop_assert!(*attempt <= POLICY.max_attempts);
                prop_assert!(*deadline == Timestamp(now).plus(POLICY.ttl));
                match &state {
                    State::Pending { not_before, .. } => {
                        prop_assert!(*not_before <= Timestamp(now));
                        prop_assert!(*epoch > highest, "an epoch was granted twice");
                        granted.push(Grant { epoch: *epoch, worker: worker.clone() });
                    }
                    State::Leased { worker: holder, epoch: held, .. } => {
                        prop_assert!(holder == worker && held == epoch, "two holders at once");
                    }
                    other => prop_assert!(false, "leased from {:?}", other),
                }
                highest = highest.max(*epoch);
            }
            match &next {
                State::Pending { attempt, .. } => prop_assert!(*attempt <= POLICY.max_attempts),
                State::Done { worker, epoch } => {
                    prop_assert!(granted.iter().any(|g| g.is(worker, *epoch)), "a result without a grant");
                }
                State::Failed { reason: Failure::Expired { attempts } } => prop_assert_eq!(*attempts, POLICY.max_attempts),
                State::Failed { .. } | State::Leased { .. } | State::Cancelled { .. } => {}
            }
            state = next;
        }
    }
}
