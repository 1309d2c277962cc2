//! The binary `evocache-worker run` with the bundled model, started and stopped like an operator would.

use std::process::{Command, Output, Stdio};

use evocache_proto::pb;

use crate::script::{Coordinator, PATIENCE};
use crate::stage::lease;

pub(crate) fn worker(coordinator: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evocache-worker"));
    command.args(["run", "--coordinator", coordinator, "--model"]);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/models/emoji")).args(more);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for the process without blocking the coordinator.
async fn output(process: std::process::Child) -> Output {
    let waiting = tokio::task::spawn_blocking(move || process.wait_with_output());
    tokio::time::timeout(PATIENCE, waiting).await.expect("the worker ends").unwrap().unwrap()
}

pub(crate) fn terminate(process: u32) {
    assert!(Command::new("kill").args(["-TERM", &process.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn the_binary_registers_and_ends_well_on_sigterm() {
    let mut coordinator = Coordinator::new();
    coordinator.start();
    let more = ["--threads", "1", "--name", "n1", "--model-name", "toy"];
    let process = worker(&coordinator.url(), &more).spawn().unwrap();
    let id = process.id();
    let answer = pb::RegisterWorkerResponse { worker_id: "w1".into(), lease_ttl: None, max_wait: None };
    let registration = coordinator.register_worker.next().await.answer(Ok(answer));
    assert_eq!((registration.name.as_str(), registration.model.as_str()), ("n1", "toy"));
    assert!(registration.device.contains("(1 thread,"), "{}", registration.device);

    // It holds a lease whose calibration never arrives.
    let lease = pb::AcquireLeaseResponse { lease: Some(native(&registration)), draining: false, ..Default::default() };
    coordinator.acquire_lease.next().await.answer(Ok(lease));
    let _unanswered = coordinator.get_calibration.next().await;
    terminate(id);
    let release = coordinator.release_lease.next().await.answer(Ok(pb::ReleaseLeaseResponse {}));
    assert_eq!(release.worker_id, "w1");
    let output = output(process).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[tokio::test]
async fn a_second_signal_ends_the_binary_at_once() {
    let mut coordinator = Coordinator::new();
    coordinator.start();
    let process = worker(&coordinator.url(), &[]).spawn().unwrap();
    let id = process.id();
    let answer = pb::RegisterWorkerResponse { worker_id: "w1".into(), ..Default::default() };
    let registration = coordinator.register_worker.next().await.answer(Ok(answer));
    let lease = pb::AcquireLeaseResponse { lease: Some(native(&registration)), draining: false, ..Default::default() };
    coordinator.acquire_lease.next().await.answer(Ok(lease));
    let _no_calibration = coordinator.get_calibration.next().await;
    terminate(id);
    let _no_answer = coordinator.release_lease.next().await;
    terminate(id);
    assert_eq!(output(process).await.status.code(), Some(128 + 15));
}

#[test]
fn no_coordinator_is_an_error_with_a_way_out() {
    let nobody = Coordinator::new();
    let output = worker(&nobody.url(), &["--connect-timeout", "300ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains("error: no coordinator answered at http://127.0.0.1:"), "{told}");
    assert!(told.contains("hint: ") && told.contains("--connect-timeout"), "{told}");
    assert!(output.stdout.is_empty(), "stdout is for data");
}

#[test]
fn what_cannot_be_run_is_said_before_anything_is_called() {
    for (more, expected) in [
        (["--coordinator", "https://h"], "port"),
        (["--ca", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
        (["--token-file", "/nowhere/token"], "/nowhere/token"),
        (["--device", "gpu"], "gpu"),
        (["--log", "a=b=c"], "--log"),
        (["--clip", "/nowhere"], "/nowhere"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evocache-worker"));
        command.args(["run", "--model", concat!(env!("CARGO_MANIFEST_DIR"), "/models/emoji")]).args(more);
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{more:?}");
        let told = stderr(&output);
        assert!(told.contains("error: ") && told.contains(expected), "{more:?}: {told}");
    }
}

/// A lease that the registered model can run.
pub(crate) fn native(registration: &pb::RegisterWorkerRequest) -> pb::Lease {
    let layout = std::sync::Arc::new(evocache_proto::wire::declaration(registration).unwrap().layout);
    let schedule = evocache_proto::domain::Schedule::all_compute(layout, 4).unwrap();
    pb::Lease { schedule: Some((&schedule).into()), ..lease("s", 0, crate::stage::LONG) }
}
