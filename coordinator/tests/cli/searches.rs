//! The verbs about searches and workers, as text and as JSON.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Coordinator, command, signal, spec_file};

#[test]
fn a_search_lives_through_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));

    assert_eq!(c.evocache(&["list", "--json"]).json(), Value::Array(vec![]));
    assert!(c.evocache(&["list"]).ok().stderr.contains("no searches"));
    assert!(c.evocache(&["launch", &spec, "--check"]).ok().stdout.contains("valid"));
    assert_eq!(c.evocache(&["list", "--json"]).json(), Value::Array(vec![]), "--check creates nothing");

    let launched = c.evocache(&["launch", &spec, "--id", "one", "--json"]).json();
    assert_eq!((&launched["search_id"], &launched["state"]), (&"one".into(), &"pending".into()));
    assert_eq!(launched["spec"]["sampling"]["steps"], serde_json::json!([10, 6]));
    let made = c.evocache(&["launch", &spec]);
    assert_eq!(made.ok().stdout.lines().count(), 1, "stdout is the id, for scripts");
    assert!(made.stderr.contains("scripted"), "what it waits for: {}", made.stderr);

    c.evocache(&["launch", &spec, "--id", "one"]).fails(1, &["one", "hint:", "--id"]);
    assert_eq!(c.evocache(&["list", "--json"]).json().as_array().unwrap().len(), 2);
    assert!(c.evocache(&["list"]).ok().stdout.contains("0/60"));
    assert!(c.evocache(&["show", "one"]).ok().stdout.contains("pending"));

    assert_eq!(c.evocache(&["pause", "one", "--json"]).json()["state"], "paused");
    assert!(c.evocache(&["resume", "one"]).ok().stdout.contains("one "));
    c.evocache(&["delete", "one", "--yes"]).fails(1, &["one"]);
    assert_eq!(c.evocache(&["stop", "one", "--json"]).json()["state"], "stopped");
    c.evocache(&["resume", "one"]).fails(1, &["one"]);
    assert_eq!(c.evocache(&["delete", "one", "--yes", "--json"]).json()["deleted"], true);
    c.evocache(&["show", "one"]).fails(3, &["one", "hint:", "evocache list"]);
    c.evocache(&["front", "one"]).fails(3, &["one"]);
    c.evocache(&["watch", "one"]).fails(3, &["one"]);
}

#[test]
fn there_are_no_answers_before_the_first_result() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "new"]).ok();
    c.evocache(&["front", "new"]).fails(3, &["new", "hint:"]);
    c.evocache(&["best", "new", "--min-speedup", "2"]).fails(3, &[]);
}

#[test]
fn no_workers_is_an_answer_too() {
    let folder = tempfile::tempdir().unwrap();
    let c = Coordinator::start(folder.path());
    assert_eq!(c.evocache(&["workers", "--json"]).json(), Value::Array(vec![]));
    assert!(c.evocache(&["workers"]).ok().stderr.contains("evocache-worker run"));
    c.evocache(&["drain", "nobody"]).fails(3, &["nobody", "hint:", "evocache workers"]);
}

#[test]
fn a_watch_tells_every_change_and_ends_with_the_search() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "w"]).ok();
    let mut watch = command(&["watch", "w", "--json", "--coordinator", &c.url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["state"], "pending");
    c.evocache(&["pause", "w"]).ok();
    assert_eq!(next()["state"], "paused");
    c.evocache(&["stop", "w"]).ok();
    assert_eq!(next()["state"], "stopped");
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn ctrl_c_ends_a_watch_and_not_the_search() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "w"]).ok();
    let mut watch = command(&["watch", "w", "--json", "--coordinator", &c.url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut first).unwrap();
    signal(&watch, "INT");
    assert_eq!(watch.wait().unwrap().code(), Some(130));
    assert_eq!(c.evocache(&["show", "w", "--json"]).json()["state"], "pending");
}
