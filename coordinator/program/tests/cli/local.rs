//! The verb `local`, with the bundled model and real worker processes: small, but nothing of it is pretended.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::support::{Outcome, command, evocache, signal};

/// Two prompts and few steps: an evaluation takes a moment even unoptimised.
pub(crate) fn spec_file(folder: &Path) -> String {
    let spec = crate::support::SPEC
        .replace("\"scripted\"", "\"emoji\"")
        .replace("[10, 6]", "[4, 3]")
        .replace("batch = 2", "batch = 2\nwarmup = 0\nrepeats = 1")
        .replace("evaluations = 60", "evaluations = 8");
    let path = folder.join("small.toml");
    std::fs::write(&path, spec).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Returns when the search's first evaluation is done, as a watcher sees it.
fn await_first_evaluation(url: &str) {
    let args = ["watch", "local", "--json", "--coordinator", url];
    let mut watch = command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let events = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line).unwrap());
    assert!(events.into_iter().any(|event| event["progress"]["evaluations"].as_u64() > Some(0)));
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn an_interrupted_search_is_resumed_and_leaves_its_results() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let out = folder.path().join("out");
    let args = ["local", "--workers", "1", "--spec", &spec, "--out", out.to_str().unwrap()];

    let mut local = command(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut talk = BufReader::new(local.stderr.take().unwrap()).lines().map(Result::unwrap);
    let before: Vec<String> = talk.by_ref().take_while(|line| !line.contains("/8 evaluations")).collect();
    let url = before.iter().flat_map(|line| line.split([' ', ','])).find(|word| word.starts_with("http://"));
    await_first_evaluation(url.unwrap());
    signal(&local, "INT");
    let after: Vec<String> = talk.collect();
    assert_eq!(local.wait().unwrap().code(), Some(130), "{before:#?} {after:#?}");
    assert!(after.iter().any(|line| line.contains("--resume")), "{after:#?}");
    // What the worker did before there was anything to show, and what there was when it was interrupted.
    assert!(before.iter().chain(&after).any(|line| line.contains("worker 1: ")), "{before:#?} {after:#?}");
    assert!(out.join("front.json").is_file() && out.join("front.svg").is_file(), "{after:#?}");

    // Another search is not what goes on here.
    let other = std::fs::read_to_string(&spec).unwrap().replace("[4, 3]", "[5, 3]");
    let other = crate::support::write(folder.path(), "other.toml", &other);
    let refused =
        |args: &[&str]| evocache(&[&["local", "--out", out.to_str().unwrap(), "--resume"][..], args].concat());
    refused(&["--spec", &other]).fails(2, &["sampling.steps: it has [4,3], not [5,3]", "hint:"]);
    refused(&["--metric", "ssim"]).fails(2, &["--metric: it has none, not ssim"]);
    refused(&["--model", folder.path().to_str().unwrap()]).fails(2, &["--model: it has the bundled model, not"]);
    refused(&["--seed", "9"]).fails(2, &["--seed: it has 1, not 9"]);
    refused(&["--budget", "9"]).fails(2, &["--budget: it has 8, not 9", "hint:", "evocache extend local"]);
    refused(&["--spec", &spec, "--budget", "9"]).fails(2, &["budget.evaluations: it has 8, not 9", "evocache extend"]);

    let resume = |extra: &[&str]| -> Outcome { evocache(&[&args[..], &["--resume"], extra].concat()) };
    let answer = resume(&["--json"]).json();
    assert_eq!(answer["search"]["state"], "completed");
    assert_eq!(answer["search"]["progress"]["evaluations"], 8);
    assert_eq!(answer["search"]["progress"]["failed"], 0);
    assert!(answer["choices"]["knee"]["answer"]["speedup"].is_number(), "{answer:#}");
    for file in ["front.json", "front.svg", "knee.json", "knee.ecad.json", "sheet.png", "worker-1.log"] {
        assert!(out.join(file).is_file(), "{file} is missing");
    }
    let again = resume(&[]);
    assert!(again.ok().stdout.contains("of the seeds alone") && again.stdout.contains("knee"), "{}", again.stdout);
}

#[test]
fn a_model_that_no_worker_can_load_ends_the_search_with_the_workers_words() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("model_index.json"), "{}").unwrap();
    let out = folder.path().join("out");
    let model = model.to_str().unwrap();
    evocache(&["local", "--workers", "2", "--spec", &spec, "--model", model, "--out", out.to_str().unwrap()])
        .fails(1, &["worker", "model_index.json", "hint:", "worker-"]);
}

#[test]
fn a_search_may_be_for_any_metric_that_its_workers_measure() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let text = std::fs::read_to_string(&spec).unwrap();
    assert!(text.contains("metric = \"clip_score\""), "{text}");
    std::fs::write(&spec, text.replace("metric = \"clip_score\"", "metric = \"ssim\"")).unwrap();
    let out = folder.path().join("out");
    let args =
        ["local", "--workers", "1", "--spec", &spec, "--out", out.to_str().unwrap(), "--metric", "ssim", "--json"];
    let answer = evocache(&args).json();
    assert_eq!(answer["search"]["quality_metric"], "ssim");
    assert_eq!(answer["search"]["progress"]["failed"], 0);
    let knee = &answer["choices"]["knee"]["answer"];
    assert_eq!(knee["quality_metric"], "ssim");
    let values = &knee["evaluation"]["measured"];
    assert!(values["ssim"].as_f64().unwrap() <= 1.0 && values["psnr"].is_number(), "{knee:#}");
}

#[test]
fn a_search_that_none_of_its_workers_can_take_ends_with_the_name_that_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let text = std::fs::read_to_string(&spec).unwrap().replace("metric = \"clip_score\"", "metric = \"pnsr\"");
    std::fs::write(&spec, text).unwrap();
    let out = folder.path().join("out");
    evocache(&["local", "--workers", "1", "--spec", &spec, "--out", out.to_str().unwrap()])
        .fails(2, &["objective[1].metric: no live worker measures 'pnsr'; did you mean 'psnr'?", "hint:"]);
}
