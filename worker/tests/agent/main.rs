//! The agent against a coordinator that each test scripts, over real gRPC. No test sleeps: each waits for an event of
//! the other side.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod contact;
#[cfg(all(unix, feature = "candle"))]
mod devices;
#[cfg(all(unix, feature = "candle"))]
mod process;
mod puppet;
mod script;
mod secure;
mod stage;

use evocache_proto::domain::{Decision, Layout, Schedule};
use evocache_proto::{PROTOCOL_VERSION, pb, wire};
use evocache_worker::agent::Ended;
use evocache_worker::evaluator::api::EvaluateError;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use puppet::{Event, Order, layout, measurement, profile};
use stage::{LONG, SHORT, Setup, key, lease, schedule};

#[tokio::test]
async fn a_candidate_is_leased_evaluated_and_reported() {
    let mut stage = Setup::default().stage();
    let registration = stage.register("w1").await;
    assert_eq!(registration.protocol_version, PROTOCOL_VERSION);
    assert_eq!(wire::declaration(&registration).unwrap().layout, *layout());

    let acquire = stage.grant(lease("s", 7, LONG)).await;
    assert_eq!(acquire.worker_id, "w1");
    assert_eq!(Duration::try_from(acquire.wait.unwrap()), Ok(Duration::from_secs(20)));
    assert_eq!(stage.calibrate().await, pb::GetCalibrationRequest { worker_id: "w1".into(), search_ref: "s".into() });
    assert_eq!(stage.evaluator.next().await, Event::Preparing("prompt of s".into()));
    assert_eq!(stage.evaluator.evaluating().await, schedule());
    stage.evaluator.order(Order::Finish);

    let complete = stage.completed().await;
    assert_eq!((complete.worker_id.as_str(), complete.lease), ("w1", key("s", 7)));
    assert_eq!(wire::measurement(&complete.measurement.unwrap()), Ok(measurement()));
}

#[tokio::test]
async fn a_lease_says_how_many_prompts_are_evaluated_and_whether_a_profile_is_welcome() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    stage.completed().await;

    let evaluating = |prompts, profile| Event::Evaluating {
        thread: "evaluator".into(),
        schedule: schedule(),
        prompts: NonZeroU32::new(prompts),
        profile,
    };
    for (candidate, prompts, wanted) in [(1, 1, false), (2, 2, true), (3, 0, true), (4, 0, false)] {
        stage.grant(pb::Lease { prompts, profile: wanted, ..lease("s", candidate, LONG) }).await;
        assert_eq!(stage.evaluator.next().await, evaluating(prompts, wanted));
        stage.evaluator.order(Order::Finish);
        let measured = wire::measurement(&stage.completed().await.measurement.unwrap()).unwrap();
        assert_eq!(measured.profile, wanted.then(profile));
    }
}

#[tokio::test]
async fn a_calibration_is_asked_for_once_per_search() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    let first = stage.completed().await;

    stage.grant(lease("s", 1, LONG)).await;
    stage.evaluator.evaluating().await;
    stage.evaluator.order(Order::Finish);
    let second = stage.completed().await;
    assert_ne!(first.request_id, second.request_id, "two results are two calls");

    stage.grant(lease("other", 0, LONG)).await;
    assert_eq!(stage.calibrate().await.search_ref, "other");
    assert_eq!(stage.evaluator.next().await, Event::Preparing("prompt of other".into()));
}

#[tokio::test]
async fn the_agent_asks_again_when_there_is_no_work() {
    let mut stage = Setup::default().registered().await;
    for _ in 0..3 {
        stage.coordinator.acquire_lease.next().await.answer(Ok(pb::AcquireLeaseResponse::default()));
    }
    stage.evaluating(LONG).await;
}

#[tokio::test]
async fn a_worker_without_work_leaves_after_its_idle_timeout() {
    let idle_timeout = Some(Duration::from_millis(300));
    let mut stage = Setup { idle_timeout, ..Setup::default() }.registered().await;
    let nothing = || Ok(pb::AcquireLeaseResponse::default());
    stage.coordinator.acquire_lease.next().await.answer(nothing());
    // Work starts the count again, and so does time without an answer.
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    stage.completed().await;
    stage.coordinator.acquire_lease.next().await.answer(nothing());
    let answered = tokio::time::Instant::now();
    stage.coordinator.acquire_lease.next().await.answer(Err(tonic::Status::unavailable("a moment")));
    assert_eq!(stage.starved().await.unwrap(), Ended::Idle);
    assert!(answered.elapsed() >= Duration::from_millis(300), "it left too early");
    assert_eq!(stage.coordinator.left(), ["w1"], "a worker that exits deregisters");
}

#[tokio::test]
async fn renewals_keep_coming_while_the_search_is_prepared_and_the_candidate_evaluated() {
    let mut stage = Setup { slow_to_prepare: true, ..Setup::default() }.registered().await;
    stage.grant(lease("s", 0, SHORT)).await;
    stage.calibrate().await;
    assert_eq!(stage.evaluator.next().await, Event::Preparing("prompt of s".into()));
    for _ in 0..4 {
        let renewal = stage.renew(SHORT, false, false).await;
        assert_eq!((renewal.worker_id.as_str(), renewal.leases), ("w1", vec![key("s", 0).unwrap()]));
    }
    stage.evaluator.order(Order::Finish);
    stage.evaluator.evaluating().await;
    for _ in 0..4 {
        stage.renew(SHORT, false, false).await;
    }
    stage.evaluator.order(Order::Finish);
    stage.completed().await;
}

#[tokio::test]
async fn a_cancelled_evaluation_ends_between_steps_and_is_not_reported() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(SHORT).await;
    stage.evaluator.order(Order::Work);
    stage.renew(SHORT, true, false).await;
    assert_eq!(stage.evaluator.next().await, Event::Cancelled);

    stage.grant(lease("s", 1, LONG)).await;
    stage.evaluator.evaluating().await;
    stage.assert_no_report();
    stage.evaluator.order(Order::Finish);
    assert_eq!(stage.completed().await.lease, key("s", 1));
}

#[tokio::test]
async fn a_cancelled_preparation_is_done_again_for_the_next_lease() {
    let mut stage = Setup { slow_to_prepare: true, ..Setup::default() }.registered().await;
    stage.grant(lease("s", 0, SHORT)).await;
    stage.calibrate().await;
    stage.evaluator.next().await;
    stage.evaluator.order(Order::Work);
    stage.renew(SHORT, true, false).await;
    assert_eq!(stage.evaluator.next().await, Event::Cancelled);

    stage.grant(lease("s", 1, LONG)).await;
    stage.calibrate().await;
    assert_eq!(stage.evaluator.next().await, Event::Preparing("prompt of s".into()));
    stage.assert_no_report();
}

#[tokio::test]
async fn an_evaluation_that_fails_is_reported_with_its_reason_and_whether_to_retry() {
    let mut stage = Setup::default().registered().await;
    let failed = |retryable| EvaluateError::Failed {
        message: "out of memory".into(),
        hint: Some("use a smaller batch".into()),
        retryable,
    };
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Error(failed(true)));
    let report = stage.failed().await;
    assert_eq!((report.lease, report.retryable), (key("s", 0), true));
    assert_eq!(report.reason, "out of memory; hint: use a smaller batch");

    stage.grant(lease("s", 1, LONG)).await;
    stage.evaluator.evaluating().await;
    stage.evaluator.order(Order::Error(failed(false)));
    assert!(!stage.failed().await.retryable);
}

#[tokio::test]
async fn a_panic_of_the_evaluator_fails_the_candidate_and_the_thread_goes_on() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Panic("tensor of the wrong shape"));
    let report = stage.failed().await;
    assert_eq!(report.reason, "the evaluator panicked: tensor of the wrong shape");
    assert!(!report.retryable);

    // The evaluator's preparation may be damaged, so it is prepared again.
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Finish);
    stage.completed().await;
}

#[tokio::test]
async fn a_reason_is_cut_to_what_the_coordinator_keeps() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Error(EvaluateError::Schedule("é".repeat(5000))));
    let reason = stage.failed().await.reason;
    assert!((4090..=4096).contains(&reason.len()), "{} bytes", reason.len());
}

#[tokio::test]
async fn a_schedule_for_another_model_fails_and_names_both_shapes() {
    let mut stage = Setup::default().registered().await;
    let foreign = Schedule::all_compute(Arc::new(Layout::pixart(28).unwrap()), 4).unwrap();
    stage.grant(pb::Lease { schedule: Some((&foreign).into()), ..lease("s", 0, LONG) }).await;
    let report = stage.failed().await;
    assert!(!report.retryable);
    for part in ["block*2[attn1,attn2,ff]", "6 slots", "84 slots", "84 bytes"] {
        assert!(report.reason.contains(part), "'{part}' is missing: {}", report.reason);
    }
    assert!(stage.coordinator.get_calibration.is_empty());
}

#[tokio::test]
async fn a_decision_that_the_worker_cannot_run_fails_the_candidate() {
    let mut stage = Setup::default().registered().await;
    let forecast =
        Schedule::from_fn(layout(), 4, |step, _| if step == 3 { Decision::Forecast } else { Decision::Compute });
    stage.grant(pb::Lease { schedule: Some((&forecast.unwrap()).into()), ..lease("s", 0, LONG) }).await;
    let report = stage.failed().await;
    assert!(report.reason.contains("forecast") && !report.retryable, "{report:?}");

    stage.grant(pb::Lease { schedule: None, ..lease("s", 1, LONG) }).await;
    assert!(stage.failed().await.reason.contains("no schedule"));
}

#[tokio::test]
async fn a_calibration_that_makes_no_sense_fails_the_candidate() {
    let mut stage = Setup::default().registered().await;
    stage.grant(lease("s", 0, LONG)).await;
    stage.coordinator.get_calibration.next().await.answer(Ok(pb::GetCalibrationResponse::default()));
    let report = stage.failed().await;
    assert!(report.reason.contains("calibration") && report.reason.contains("sampling"), "{}", report.reason);
}

#[tokio::test]
async fn a_draining_worker_leaves_when_it_has_no_work() {
    let mut stage = Setup::default().registered().await;
    let drained = pb::AcquireLeaseResponse { lease: None, draining: true, ..Default::default() };
    stage.coordinator.acquire_lease.next().await.answer(Ok(drained));
    assert_eq!(stage.ended().await.unwrap(), Ended::Drained);
    assert_eq!(stage.coordinator.left(), ["w1"], "a worker that exits deregisters");
    assert_eq!(stage.evaluator.next().await, Event::Dropped);
}

#[tokio::test]
async fn a_worker_that_is_drained_while_it_evaluates_finishes_reports_and_leaves() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(SHORT).await;
    stage.renew(SHORT, false, true).await;
    stage.renew(LONG, false, true).await;
    stage.evaluator.order(Order::Finish);
    stage.completed().await;
    assert_eq!(stage.ended().await.unwrap(), Ended::Drained);
    assert!(stage.coordinator.acquire_lease.is_empty(), "a draining worker asks for no more work");
}

#[tokio::test]
async fn a_shutdown_cancels_the_evaluation_and_gives_the_lease_back() {
    let mut stage = Setup::default().registered().await;
    stage.evaluating(LONG).await;
    stage.evaluator.order(Order::Work);
    stage.shut_down();
    let release = stage.coordinator.release_lease.next().await.answer(Ok(pb::ReleaseLeaseResponse {}));
    assert_eq!((release.worker_id.as_str(), release.lease), ("w1", key("s", 0)));
    assert_eq!(stage.evaluator.next().await, Event::Cancelled);
    assert_eq!(stage.ended().await.unwrap(), Ended::ShutDown);
    assert_eq!(stage.evaluator.next().await, Event::Dropped);
    stage.assert_no_report();
}

#[tokio::test]
async fn a_shutdown_ends_an_agent_that_waits_for_work() {
    let mut stage = Setup::default().registered().await;
    let _unanswered = stage.coordinator.acquire_lease.next().await;
    stage.shut_down();
    assert_eq!(stage.ended().await.unwrap(), Ended::ShutDown);
    stage.assert_no_report();
}
