//! The verbs about searches and workers, as text and as JSON.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;

use evocache_proto::domain::{Decision, Declaration, Layout, Schedule};
use evocache_proto::formats;
use serde_json::Value;

use crate::support::{Coordinator, SPEC, command, evocache, signal, spec_file, write};
use crate::worker::{appear, declaration, work};

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
    c.evocache(&["explain", "one", "0"]).fails(3, &["one"]);
}

#[test]
fn a_search_tells_how_it_searches() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    work(&c.url, "s");
    let insight = &c.evocache(&["show", "s", "--json"]).json()["insight"];
    let operators = insight["operators"].as_array().unwrap();
    assert!(operators.iter().any(|o| o["operator"] == "seed" && o["results"].as_u64() > Some(0)), "{insight:#}");
    let shares: f64 = operators.iter().filter_map(|o| o["share"].as_f64()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{insight:#}");
    assert!(insight["models"].is_array() && insight["profiled"] == false, "{insight:#}");
    let text = c.evocache(&["show", "s"]);
    for word in ["operator", "of all gain", "rank correlation", "profile       none"] {
        assert!(text.ok().stdout.contains(word), "'{word}' is not in {}", text.stdout);
    }
    assert!(c.evocache(&["list", "--json"]).json()[0]["insight"].is_null(), "of one search only");
}

#[test]
fn a_completed_search_is_extended_by_the_limits_that_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    work(&c.url, "s");
    c.evocache(&["extend", "s"]).fails(2, &["--evaluations", "--stagnation"]);
    c.evocache(&["extend", "s", "--evaluations", "60"]).fails(1, &["60 evaluations", "no more than the 60"]);
    c.evocache(&["extend", "s", "--evaluations", "80", "--wall-time", "1h"])
        .fails(1, &["no wall_time", "leave it out"]);
    c.evocache(&["extend", "x", "--evaluations", "61"]).fails(3, &["no search 'x'"]);
    let extended = c.evocache(&["extend", "s", "--evaluations", "80", "--json"]).json();
    assert_eq!((&extended["state"], &extended["spec"]["budget"]["evaluations"]), (&"running".into(), &80.into()));
    let text = c.evocache(&["extend", "s", "--evaluations", "90"]);
    assert!(text.ok().stdout.starts_with("s running: 60/90 evaluations"), "{}", text.stdout);
    assert!(c.evocache(&["show", "s"]).ok().stdout.contains("60/90"));
    assert_eq!(work(&c.url, "s"), 30);
    let lines = c.evocache(&["watch", "s", "--json"]);
    let last: Value = serde_json::from_str(lines.ok().stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["state"], &last["budget"]["evaluations"]), (&"completed".into(), &90.into()));
}

#[test]
fn evaluations_on_a_part_of_the_prompts_use_a_part_of_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let text = SPEC.replace("[[prompt]]\ntext = \"a cat\"", "[[prompt]]\ntext = \"a cat\"\n[algorithm]\nrungs = [1]");
    let spec = write(folder.path(), "rungs.toml", &text);
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    work(&c.url, "s");
    let progress = &c.evocache(&["show", "s", "--json"]).json()["progress"];
    let (made, spent) = (progress["evaluations"].as_f64().unwrap(), progress["spent"].as_f64().unwrap());
    assert!(made > spent && (60.0..61.0).contains(&spent), "{progress:#}");
    let text = c.evocache(&["show", "s"]);
    assert!(text.ok().stdout.contains(&format!("60/60 ({made} made")), "{}", text.stdout);
}

#[test]
fn there_are_no_answers_before_the_first_result() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "new"]).ok();
    c.evocache(&["front", "new"]).fails(3, &["new", "hint:"]);
    c.evocache(&["best", "new", "--min-speedup", "2"]).fails(3, &[]);
    c.evocache(&["explain", "new", "0"]).fails(3, &["new", "hint:", "watch"]);
    let prompts = write(folder.path(), "held-out.txt", "a dog");
    c.evocache(&["validate", "new", "--prompts-file", &prompts]).fails(3, &["new", "hint:", "watch"]);
    assert_eq!(c.evocache(&["list", "--json"]).json().as_array().unwrap().len(), 1, "nothing was created");
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

#[test]
fn imported_schedules_are_told_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Arc::new(Layout::pixart(3).unwrap());
    let every = |n: u32, steps: u32| {
        let on = move |step: u32, _| if step.is_multiple_of(n) { Decision::Compute } else { Decision::Reuse };
        Schedule::from_fn(layout.clone(), steps, on).unwrap()
    };
    // The last two are one schedule, and the fourth is for a step count that the search does not have.
    let files = [
        ("two.json", every(2, 10)),
        ("five.json", every(5, 10)),
        ("far.json", every(4, 40)),
        ("same.json", every(2, 10)),
    ];
    for (name, schedule) in &files {
        write(folder.path(), name, &formats::write_own(schedule, None));
    }
    let names: Vec<String> = files.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let import = format!("import = [{}]\nseed = 1", names.join(", "));
    let spec = write(folder.path(), "s.toml", &SPEC.replace("seed = 1", &import));
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    assert!(c.evocache(&["show", "s"]).ok().stdout.contains("two.json"), "before there is any candidate");
    work(&c.url, "s");

    let shown = c.evocache(&["show", "s", "--json"]).json();
    let imported = shown["imported_schedules"].as_array().unwrap();
    let front = c.evocache(&["explain", "s", "1", "--json"]).json();
    assert_eq!(front["ancestors"][0]["imported"], serde_json::json!(["two.json", "same.json"]), "{front:#}");
    for (row, (name, schedule)) in imported.iter().zip(&files) {
        assert_eq!(row["name"], *name, "{shown:#}");
        let candidate = row["candidate"].as_u64().unwrap_or_else(|| panic!("{name}: {shown:#}")).to_string();
        if schedule.steps() == 10 {
            assert_eq!(row["schedule_id"], schedule.id().to_string(), "{name}");
        }
        let told = c.evocache(&["explain", "s", &candidate]);
        assert!(told.ok().stdout.contains(name), "{}", told.stdout);
    }
    let table = c.evocache(&["show", "s"]).stdout;
    assert!(table.lines().any(|line| line.starts_with("far.json") && line.contains(" 40 ")), "{table}");
    let front = c.evocache(&["front", "s", "--rows", "0"]).stdout;
    let members = c.evocache(&["front", "s", "--json"]).json();
    for member in members["evaluations"].as_array().unwrap().iter().filter(|e| e["operator"] == "seed") {
        for name in member["imported"].as_array().unwrap() {
            assert!(front.contains(name.as_str().unwrap()), "{name} is not in {front}");
        }
    }
}

#[test]
fn names_that_no_worker_offers_are_told_with_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let typo = SPEC.replace("\"scripted\"", "\"scriptde\"").replace("\"clip_score\"", "\"clip_scroe\"");
    let typo = write(folder.path(), "typo.toml", &typo);
    let right = spec_file(folder.path());
    // Without a coordinator: what can be said here comes first.
    let alone = evocache(&["launch", &typo, "--check", "--coordinator", "http://127.0.0.1:1"]);
    assert!(alone.fails(1, &["typo.toml is valid by itself", "not reachable"]).stdout.is_empty());

    let c = Coordinator::start(&folder.path().join("data"));
    let nobody = c.evocache(&["launch", &right, "--check"]);
    assert!(nobody.ok().stderr.contains("no worker is alive now"), "{}", nobody.stderr);
    let worker = appear(&c.url, &declaration());
    let good = c.evocache(&["launch", &right, "--check", "--json"]);
    assert_eq!(good.json(), serde_json::json!({ "valid": true, "warnings": [] }));
    assert!(good.stderr.is_empty(), "{}", good.stderr);
    let told = c.evocache(&["launch", &typo, "--check"]);
    for words in [
        "model.name: no live worker has 'scriptde'; did you mean 'scripted'?",
        "objective[1].metric",
        "did you mean 'clip_score'?",
    ] {
        assert!(told.ok().stderr.contains(words), "{words} is not in {}", told.stderr);
    }
    let launched = c.evocache(&["launch", &typo, "--id", "typo"]);
    assert!(launched.ok().stderr.contains("did you mean 'scripted'?"), "it is created, and told: {}", launched.stderr);
    assert_eq!(c.evocache(&["workers", "--json"]).json()[0]["metrics"], serde_json::json!(["clip_score"]));

    for verb in [&["show"][..], &["watch"], &["front"], &["best"], &["stop"], &["delete", "--yes"]] {
        c.evocache(&[verb, &["typos"]].concat()).fails(3, &["typos", "did you mean 'typo'?", "hint:"]);
    }
    // Workers go by their names too.
    c.evocache(&["drain", "scripted/1"]).fails(3, &["'scripted/1'; did you mean 'scripted/0'?"]);
    assert_eq!(c.evocache(&["drain", "scripted/0", "--json"]).json()["worker_id"], worker.as_str());
    let twins = [(); 2].map(|()| appear(&c.url, &Declaration { name: "twin".into(), ..declaration() }));
    c.evocache(&["drain", "twin"]).fails(2, &["2 workers have the name 'twin'", "hint:", &twins[0], &twins[1]]);
}
