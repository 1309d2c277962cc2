//! The verb `validate`: a front on prompts that its search has not seen.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Coordinator, command, spec_file, write};
use crate::worker::work;

/// Validates `s` as `held-out` with a worker at hand; the answer is what it wrote as JSON.
fn validate(c: &Coordinator, prompts: &str) -> Value {
    let args = ["validate", "s", "--prompts-file", prompts, "--name", "held-out", "--json", "--coordinator", &c.url];
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut talk = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let told: Vec<String> = talk.by_ref().take_while(|line| !line.contains("search held-out measures")).collect();
    assert!(told.is_empty(), "it did not come as far as to create a search: {told:#?}");
    work(&c.url, "held-out");
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let rest: Vec<String> = talk.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_front_is_measured_again_on_prompts_that_it_has_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    work(&c.url, "s");
    let prompts = write(folder.path(), "held-out.txt", "a dog\na tree\na boat\n");
    let report = validate(&c, &prompts);

    // The search that it made.
    let made = c.evocache(&["show", "held-out", "--json"]).json();
    let (spec, imported) = (&made["spec"], made["spec"]["imported"].as_u64().unwrap());
    assert_eq!((&spec["prompts"], &spec["labels"]["validates"]), (&3.into(), &"s".into()));
    assert_eq!((&spec["algorithm"]["strategy"], &spec["algorithm"]["seeds"]), (&"imported".into(), &false.into()));
    assert_eq!(spec["budget"]["evaluations"], 2 * (1 + imported));
    assert_eq!(made["progress"]["evaluations"], 2 * (1 + imported), "each is measured twice");

    // What it told.
    assert_eq!((&report["validation_id"], &report["prompts"]), (&"held-out".into(), &3.into()));
    assert_eq!(report["missing"], Value::Array(vec![]));
    let (front, seeds) = (report["front"].as_array().unwrap(), report["seeds"].as_array().unwrap());
    assert!(front.len() > 3 && seeds.len() > 10, "{report:#}");
    for row in front.iter().chain(seeds) {
        assert_eq!(row["held_out"]["measurements"], 2, "{row:#}");
        assert!(row["held_out"]["quality_ratio_error"].is_number(), "{row:#}");
        let quality = &row["held_out"]["metrics"][report["quality_metric"].as_str().unwrap()];
        assert_eq!(quality["mean"], row["held_out"]["quality"], "{row:#}");
        assert!(quality["uncached"].is_number() && quality["difference_error"].is_number(), "{row:#}");
        // The third prompt is a little harder than the two of the search.
        let ratio = |on: &str| row[on]["quality_ratio"].as_f64().unwrap();
        assert!(ratio("held_out") <= ratio("in_sample"), "{row:#}");
    }
    let held = front.iter().filter(|row| row["verdict"] == "held").count();
    assert_eq!(report["held"], held);
    for choice in ["chosen_in_sample", "chosen_held_out"] {
        let choice = &report[choice];
        let gain = choice["front_over_heuristic"]["value"].as_f64().unwrap();
        let speedup = |row: &str| choice[row]["held_out"]["speedup"].as_f64().unwrap();
        assert!((gain - speedup("front") / speedup("heuristic")).abs() < 1e-9, "{choice:#}");
        let families = choice["families"].as_object().unwrap();
        assert!(families.len() > 5 && families.values().any(Value::is_object), "{choice:#}");
    }
    let oracle = &report["chosen_held_out"]["front"]["held_out"];
    assert!(oracle["quality_ratio"].as_f64() >= Some(0.98), "{oracle:#}");

    // The same again only reads; other prompts are another validation.
    let again = c.evocache(&["validate", "s", "--prompts-file", &prompts, "--name", "held-out"]);
    for words in
        ["schedules of the front held on 3 prompts", "fastest with at least 98.0 %", "as fast as the heuristic"]
    {
        assert!(again.ok().stdout.contains(words), "'{words}' is not in {}", again.stdout);
    }
    let more = ["validate", "s", "--prompts-file", &prompts, "--prompts", "2", "--name", "held-out"];
    c.evocache(&more).fails(1, &["held-out", "hint:"]);
    let larger = ["validate", "s", "--prompts-file", &prompts, "--batch", "3", "--name", "held-out"];
    c.evocache(&larger).fails(1, &["held-out", "hint:"]);
    c.evocache(&["validate", "gone", "--prompts-file", &prompts]).fails(3, &["gone", "hint:", "evocache list"]);
}

#[test]
fn an_interrupted_validation_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    work(&c.url, "s");
    // One prompt is one of the search's own.
    let prompts = write(folder.path(), "held-out.txt", "a dog\na cat\n");
    let args = ["validate", "s", "--prompts-file", &prompts, "--name", "v", "--coordinator", &c.url];
    let mut child = command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut talk = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // The progress line comes when it follows, and then it listens.
    let before: Vec<String> = talk.by_ref().take_while(|line| !line.contains("evaluations")).collect();
    assert!(before.iter().any(|line| line.contains("1 of 2 prompts are also prompts of search s")), "{before:#?}");
    crate::support::signal(&child, "INT");
    let after: Vec<String> = talk.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{after:#?}");
    assert!(after.iter().any(|line| line.contains("--name v")), "{after:#?}");
    work(&c.url, "v");
    let report = c.evocache(&["validate", "s", "--prompts-file", &prompts, "--name", "v", "--json"]).json();
    assert_eq!(report["validation_id"], "v");
}
