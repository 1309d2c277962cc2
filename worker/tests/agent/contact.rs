//! The agent's behavior when the coordinator is unreachable, no longer knows the worker, or refuses a call.

use std::time::Duration;

use evocache_proto::pb;
use evocache_worker::agent::{AgentError, Ended};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::puppet::Order;
use crate::stage::{LONG, SHORT, Setup, key, lease};

#[tokio::test]
async fn a_superseded_result_is_dropped() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    let details = ErrorDetails::with_error_info("LEASE_SUPERSEDED", "evocache", [("epoch".to_owned(), "3".to_owned())]);
    let superseded = Status::with_error_details(Code::FailedPrecondition, "superseded", details);
    stage.coordinator.complete_evaluation.next().await.answer(Err(superseded));

    stage.grant(lease("s", 1, LONG)).await;
    stage.evaluator.evaluating().await;
    stage.assert_no_report();
}

#[tokio::test]
async fn a_forgotten_worker_registers_again_and_goes_on() {
    let mut stage = Setup::default().stage();
    let first = stage.register("w1").await;
    let unknown = Status::not_found("no worker 'w1'");
    stage.coordinator.acquire_lease.next().await.answer(Err(unknown));
    let second = stage.register("w2").await;
    assert_ne!(first.request_id, second.request_id, "it is another registration");
    assert_eq!(stage.grant(lease("s", 0, LONG)).await.worker_id, "w2");
    stage.calibrate().await;
}

#[tokio::test]
async fn an_evaluation_outlives_a_coordinator_that_has_forgotten_the_worker() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(SHORT).await;
    for _ in 0..3 {
        stage.coordinator.renew_leases.next().await.answer(Err(Status::not_found("no worker 'w1'")));
    }
    stage.evaluator.order(Order::Finish);
    assert_eq!(stage.completed().await.worker_id, "w1", "the lease was granted to w1");
}

#[tokio::test]
async fn a_result_survives_a_coordinator_that_dies_and_comes_back() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(SHORT).await;
    stage.renew(SHORT, false, false).await;
    stage.coordinator.kill().await;
    // The evaluation ends while the coordinator is down.
    stage.evaluator.order(Order::Finish);
    stage.coordinator.start();

    // The result arrives, and the coordinator dies before its answer does.
    let unanswered = stage.coordinator.complete_evaluation.next().await;
    stage.coordinator.kill().await;
    stage.coordinator.start();
    let repeated = stage.completed().await;
    assert_eq!(repeated, unanswered.request, "a repeat is the same call, request id included");
    assert_eq!(repeated.lease, key("s", 0));

    assert_eq!(stage.grant(lease("s", 1, LONG)).await.worker_id, "w1");
    stage.evaluator.evaluating().await;
    stage.assert_no_report();
}

#[tokio::test]
async fn renewals_go_on_after_the_coordinator_was_away() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(SHORT).await;
    stage.renew(SHORT, false, false).await;
    stage.coordinator.kill().await;
    stage.coordinator.start();
    // The mailbox may still contain a renewal that the killed coordinator received.
    for _ in 0..3 {
        stage.renew(SHORT, false, false).await;
    }
    stage.evaluator.order(Order::Finish);
    stage.completed().await;
}

#[tokio::test]
async fn a_coordinator_that_is_busy_gets_the_same_result_again() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    let busy = Status::resource_exhausted("too many calls waiting");
    let first = stage.coordinator.complete_evaluation.next().await.answer(Err(busy));
    let stopping = Status::unavailable("stopping");
    let second = stage.coordinator.complete_evaluation.next().await.answer(Err(stopping));
    assert_eq!(first, second);
    assert_eq!(first, stage.completed().await);
}

#[tokio::test]
async fn a_result_that_always_meets_an_internal_error_is_given_up() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    for _ in 0..8 {
        stage.coordinator.complete_evaluation.next().await.answer(Err(Status::internal("bug 7")));
    }
    stage.grant(lease("s", 1, LONG)).await;
    stage.evaluator.evaluating().await;
    stage.assert_no_report();
}

#[tokio::test]
async fn a_result_that_the_coordinator_refuses_as_invalid_fails_the_candidate() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    let refused = Status::invalid_argument("metric 'clip_score' is NaN");
    stage.coordinator.complete_evaluation.next().await.answer(Err(refused));
    let report = stage.failed().await;
    assert!(report.reason.contains("clip_score") && !report.retryable, "{report:?}");
}

#[tokio::test]
async fn a_search_that_is_deleted_before_its_calibration_is_fetched_releases_the_candidate() {
    let mut stage = Setup::default().registered().await;
    stage.grant(lease("s", 0, LONG)).await;
    stage.coordinator.get_calibration.next().await.answer(Err(Status::not_found("no search 's'")));
    let release = stage.coordinator.release_lease.next().await.answer(Ok(pb::ReleaseLeaseResponse {}));
    assert_eq!(release.lease, key("s", 0));
    stage.evaluating(LONG).await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever_for_a_coordinator_that_is_away() {
    let mut stage = Setup { grace: Duration::from_millis(100), ..Setup::default() }.registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Work);
    stage.coordinator.kill().await;
    stage.shut_down();
    assert_eq!(stage.ended().await.unwrap(), Ended::ShutDown);
}

#[tokio::test]
async fn a_shutdown_abandons_a_result_that_is_not_acknowledged() {
    let mut stage = Setup { grace: Duration::from_millis(100), ..Setup::default() }.registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    let _unanswered = stage.coordinator.complete_evaluation.next().await;
    stage.shut_down();
    assert_eq!(stage.ended().await.unwrap(), Ended::ShutDown);
}

#[tokio::test]
async fn the_agent_may_start_before_the_coordinator() {
    let mut stage = Setup { listening: false, ..Setup::default() }.stage();
    // The first attempts are refused, because nothing listens on the port.
    tokio::task::yield_now().await;
    stage.coordinator.start();
    stage.register("w1").await;
    stage.evaluating(LONG).await;
}

#[tokio::test]
async fn no_coordinator_within_the_connect_timeout_is_an_error_that_says_where_and_why() {
    let setup = Setup { listening: false, connect_timeout: Duration::from_millis(200), ..Setup::default() };
    let mut stage = setup.stage();
    let Err(error @ AgentError::Unreachable { .. }) = stage.ended().await else { panic!("nobody was there") };
    let text = error.to_string();
    assert!(text.contains(&stage.coordinator.url()) && text.contains("0.2 s"), "{text}");
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
}

#[tokio::test]
async fn a_coordinator_that_speaks_another_protocol_is_an_error_with_its_message() {
    let mut stage = Setup::default().stage();
    let other = Status::failed_precondition("protocol version 1 is not supported, this coordinator speaks 2");
    stage.coordinator.register_worker.next().await.answer(Err(other));
    let Err(error @ AgentError::Refused { .. }) = stage.ended().await else { panic!("it was refused") };
    assert!(error.to_string().contains("this coordinator speaks 2"), "{error}");
}

#[tokio::test]
async fn a_worker_without_permission_stops() {
    let mut stage = Setup::default().registered().await;
    let denied = Status::permission_denied("role 'viewer' may not lease");
    stage.coordinator.acquire_lease.next().await.answer(Err(denied));
    let Err(error @ AgentError::Denied { .. }) = stage.ended().await else { panic!("access must be denied") };
    assert!(error.to_string().contains("AcquireLease") && error.to_string().contains("viewer"), "{error}");
}

#[tokio::test]
async fn a_worker_whose_token_expires_gives_up_its_result_and_stops() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    let expired = || Status::unauthenticated("the token of 'gpu-1' has expired");
    stage.coordinator.complete_evaluation.next().await.answer(Err(expired()));
    stage.coordinator.acquire_lease.next().await.answer(Err(expired()));
    let Err(error @ AgentError::Denied { .. }) = stage.ended().await else { panic!("access must be denied") };
    assert!(error.to_string().contains("has expired"), "{error}");
}
