//! `run --devices`: several worker processes under a supervisor, with the bundled model.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use evocache_proto::pb;

use crate::process::{native, terminate, worker};
use crate::script::{Coordinator, PATIENCE};

/// A supervisor and its log, line by line. Kills the supervisor when dropped.
struct Rack {
    process: Child,
    log: Receiver<String>,
}

impl Drop for Rack {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Rack {
    fn start(coordinator: &str, more: &[&str]) -> Self {
        let mut command = worker(coordinator, &["--threads", "1", "--name", "rack"]);
        let mut process = command.args(more).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (tell, log) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { process, log }
    }

    /// The next line of the log that contains `part`.
    fn says(&self, part: &str) -> String {
        let mut before = vec![];
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => before.push(line),
                Err(e) => panic!("'{part}' is not in the log ({e}): {before:#?}"),
            }
        }
    }

    /// The process id of the next worker.
    fn started(&self) -> u32 {
        let line = self.says("started");
        line.rsplit("process=").next().unwrap().parse().unwrap_or_else(|e| panic!("{e} in {line}"))
    }

    /// Waits until it ends, without blocking the coordinator. Returns the exit code.
    async fn ended(mut self) -> Option<i32> {
        let waiting = tokio::task::spawn_blocking(move || self.process.wait());
        tokio::time::timeout(PATIENCE, waiting).await.expect("it ends").unwrap().unwrap().code()
    }
}

fn kill(process: u32) {
    assert!(Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
}

/// Registers the next worker as `id` and grants it a lease whose calibration never arrives.
async fn occupy(coordinator: &mut Coordinator, id: &str) -> pb::RegisterWorkerRequest {
    let answer = pb::RegisterWorkerResponse { worker_id: id.to_owned(), ..Default::default() };
    let registration = coordinator.register_worker.next().await.answer(Ok(answer));
    let lease = pb::AcquireLeaseResponse { lease: Some(native(&registration)), draining: false, ..Default::default() };
    coordinator.acquire_lease.next().await.answer(Ok(lease));
    registration
}

#[tokio::test]
async fn one_worker_runs_per_device_and_sigterm_gives_every_lease_back_once() {
    let mut coordinator = Coordinator::new();
    coordinator.start();
    let rack = Rack::start(&coordinator.url(), &["--devices", "cpu,cpu"]);
    let mut names = vec![];
    for id in ["w1", "w2"] {
        names.push(occupy(&mut coordinator, id).await.name);
    }
    names.sort();
    assert_eq!(names, ["rack/cpu#1", "rack/cpu#2"]);
    let _unanswered = [coordinator.get_calibration.next().await, coordinator.get_calibration.next().await];
    terminate(rack.process.id());
    let mut released = vec![];
    for _ in 0..2 {
        let release = coordinator.release_lease.next().await.answer(Ok(pb::ReleaseLeaseResponse {}));
        released.push(release.worker_id);
    }
    released.sort();
    assert_eq!(released, ["w1", "w2"]);
    assert_eq!(rack.ended().await, Some(0));
    assert!(coordinator.release_lease.is_empty() && coordinator.fail_evaluation.is_empty());
}

#[tokio::test]
async fn a_worker_that_crashes_is_started_again_under_the_same_name_so_often() {
    let mut coordinator = Coordinator::new();
    coordinator.start();
    let rack = Rack::start(&coordinator.url(), &["--devices", "cpu", "--restarts", "1"]);
    let mut names = vec![];
    for (id, end) in [("w1", "restarting it in 1s, 1 of 1"), ("w2", "not restarted after 1 restarts")] {
        let process = rack.started();
        names.push(occupy(&mut coordinator, id).await.name);
        kill(process);
        let line = rack.says(end);
        assert!(line.contains("signal: 9") && line.contains("device=\"cpu\""), "{line}");
    }
    assert_eq!(names, ["rack/cpu", "rack/cpu"]);
    assert_eq!(rack.ended().await, Some(1));
}

#[tokio::test]
async fn workers_leave_when_the_process_above_them_is_killed() {
    let mut coordinator = Coordinator::new();
    coordinator.start();
    let rack = Rack::start(&coordinator.url(), &["--devices", "cpu", "--log-format", "json"]);
    occupy(&mut coordinator, "w1").await;
    let _unanswered = coordinator.get_calibration.next().await;
    let line = rack.says("registered with");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e} in {line}"));
    assert_eq!((&line["device"], &line["level"]), (&"cpu".into(), &"INFO".into()), "{line}");
    kill(rack.process.id());
    let release = coordinator.release_lease.next().await.answer(Ok(pb::ReleaseLeaseResponse {}));
    assert_eq!(release.worker_id, "w1");
}

#[tokio::test]
async fn workers_that_a_batch_system_signals_too_still_give_their_leases_back() {
    let mut coordinator = Coordinator::new();
    coordinator.start();
    let rack = Rack::start(&coordinator.url(), &["--devices", "cpu"]);
    let worker = rack.started();
    occupy(&mut coordinator, "w1").await;
    let _unanswered = coordinator.get_calibration.next().await;
    terminate(worker);
    let release = coordinator.release_lease.next().await;
    // The process above passes its own signal on, which is the second one of the worker.
    terminate(rack.process.id());
    rack.says("stopping 1 workers");
    release.answer(Ok(pb::ReleaseLeaseResponse {}));
    assert_eq!(rack.ended().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_all_at_once() {
    let mut coordinator = Coordinator::new();
    coordinator.start();
    let rack = Rack::start(&coordinator.url(), &["--devices", "cpu,cpu"]);
    for id in ["w1", "w2"] {
        occupy(&mut coordinator, id).await;
    }
    // A worker that asks for the calibration has received its lease.
    let _calibrations = [coordinator.get_calibration.next().await, coordinator.get_calibration.next().await];
    terminate(rack.process.id());
    let _releases = [coordinator.release_lease.next().await, coordinator.release_lease.next().await];
    terminate(rack.process.id());
    assert_eq!(rack.ended().await, Some(128 + 15));
}

#[tokio::test]
async fn a_worker_that_has_told_its_error_is_not_started_again() {
    let nobody = Coordinator::new();
    let rack = Rack::start(&nobody.url(), &["--devices", "cpu", "--connect-timeout", "200ms"]);
    rack.says("error: no coordinator answered");
    rack.says("not restarted");
    assert_eq!(rack.ended().await, Some(1));
}

#[test]
fn all_devices_of_a_machine_without_any_is_an_error_with_a_way_out() {
    let output = worker("http://127.0.0.1:1", &["--devices", "all"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("error: device all cannot be used: ") && told.contains("hint: "), "{told}");
    let output = worker("http://127.0.0.1:1", &["--devices", "cpu,gpu"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("'gpu' is not a device"));
}
