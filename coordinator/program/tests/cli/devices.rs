//! Workers of one machine under one process, with a real coordinator: one crashes amid a search.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::local::spec_file;
use crate::support::{Coordinator, command, signal};

#[test]
fn a_search_outlives_the_crash_of_a_worker_that_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start_with(&folder.path().join("store"), &["--lease-ttl", "3s"]);
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../worker/models/emoji");
    let mut rack = command(&["worker-process", "--devices", "cpu,cpu", "--name", "rack", "--threads", "1"])
        .args(["--coordinator", &coordinator.url, "--model", model, "--model-name", "emoji"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Waiting for it closes its stdin, which is another order to leave.
    let _stdin = rack.stdin.take();
    let mut log = BufReader::new(rack.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut processes = vec![];
    let mut registered = |processes: &mut Vec<String>| {
        let came = log.any(|line| {
            processes.extend(line.split_once("process=").map(|(_, process)| process.to_owned()));
            line.contains("registered with")
        });
        assert!(came, "a worker has not come up");
    };
    registered(&mut processes);
    registered(&mut processes);
    coordinator.evocache(&["launch", &spec_file(folder.path()), "--id", "s"]).ok();
    // It dies with whatever it holds, and comes back.
    assert!(Command::new("kill").args(["-KILL", &processes[0]]).status().unwrap().success());
    registered(&mut processes);
    assert_eq!(processes.len(), 3, "two, and one of them again");
    coordinator.evocache(&["watch", "s"]).ok();
    let search = coordinator.evocache(&["show", "s", "--json"]).json();
    assert_eq!(search["progress"]["evaluations"], 8, "{search:#}");
    let workers = coordinator.evocache(&["workers", "--json"]).json();
    let mut names: Vec<&str> = workers.as_array().unwrap().iter().map(|w| w["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["rack/cpu#1", "rack/cpu#2"]);
    signal(&rack, "TERM");
    assert_eq!(rack.wait().unwrap().code(), Some(0));
}
