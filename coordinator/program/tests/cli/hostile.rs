//! Texts chosen by somebody who wants a terminal to do more than show them. Every verb shows them, and nothing acts.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use evocache_proto::domain::Declaration;
use serde_json::Value;

use crate::support::{Coordinator, Outcome, SPEC, evocache, write};
use crate::worker::{declaration, give_up, work_as};

/// Clears the screen, sets a title, goes back, begins a line, colours by C1, reverses, separates, isolates, deletes.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;t\u{7}\r\nhint: y\u{9b}31m\u{202e}\u{2028}\u{2066}\u{feff}\u{7f}z";

/// Verbs that show nothing of what others wrote, and why.
const SILENT: [(&str, &str); 8] = [
    ("local", "its coordinator and workers are its own"),
    ("simulate", "its coordinator and workers are its own"),
    ("scale", "calls no coordinator; what an engine says is looked at in cluster.rs"),
    ("down", "calls no coordinator; what an engine says is looked at in cluster.rs"),
    ("serve", "its log is looked at below"),
    ("token", "its file is the user's own"),
    ("completions", "a script of this program"),
    ("help", "a text of this program"),
];

fn acts(c: char) -> bool {
    (c.is_control() && c != '\n') || "\u{202e}\u{2028}\u{2066}\u{feff}".contains(c)
}

#[track_caller]
fn harmless(what: &str, text: &str) {
    let found: Vec<char> = text.chars().filter(|&c| acts(c)).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
    // Nobody but this program begins a line with a hint.
    assert!(!text.lines().any(|line| line.starts_with("hint: y")), "{what}: {text}");
}

fn hostile_worker() -> Declaration {
    Declaration {
        name: HOSTILE.into(),
        device: HOSTILE.into(),
        software: HOSTILE.into(),
        model: HOSTILE.into(),
        fingerprint: HOSTILE.into(),
        labels: [(HOSTILE.to_owned(), HOSTILE.to_owned())].into(),
        ..declaration()
    }
}

/// A specification whose free texts are all hostile.
fn hostile_spec(folder: &Path) -> String {
    let text = serde_json::to_string(HOSTILE).unwrap();
    // TOML takes JSON's escapes, but no DEL as it is.
    let text = evocache_proto::text::json(&text).into_owned();
    let spec = SPEC
        .replace("\"scripted\"", &text)
        .replace("guidance_scale = 3.0", &format!("guidance_scale = 3.0\nnegative_prompt = {text}"))
        .replace("text = \"a cat\"", &format!("text = {text}\n[labels]\n{text} = {text}"));
    write(folder, "hostile.toml", &spec)
}

#[test]
fn no_verb_lets_a_text_act_on_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let spec = hostile_spec(folder.path());
    let data = folder.path().join("data");
    let c = Coordinator::start(&data);
    c.evocache(&["launch", &spec, "--id", "waits"]).ok();
    c.evocache(&["pause", "waits"]).ok();
    c.evocache(&["launch", &spec, "--id", "fails"]).ok();
    give_up(&c.url, "fails", &hostile_worker(), HOSTILE);
    c.evocache(&["launch", &spec, "--id", "done"]).ok();
    work_as(&c.url, "done", &hostile_worker());
    let workers = c.evocache(&["workers", "--json"]).json();
    let worker = workers[0]["worker_id"].as_str().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    let prompts = write(folder.path(), "held-out.txt", "a dog");
    let backup = folder.path().join("backup").to_str().unwrap().to_owned();

    let calls: &[&[&str]] = &[
        &["list"],
        &["workers"],
        &["show", "waits"],
        &["show", "fails"],
        &["show", "done"],
        &["watch", "fails"],
        &["watch", "done"],
        &["front", "done", "--out", out],
        &["best", "done", "--min-speedup", "1.5"],
        &["best", "done", "--out", "-"],
        &["explain", "done", "7"],
        &["validate", "fails", "--prompts-file", &prompts],
        &["launch", &spec, "--id", "done"],
        &["launch", &spec, "--check"],
        &["drain", worker],
        &["resume", "waits"],
        &["pause", "waits"],
        &["extend", "waits", "--evaluations", "70"],
        &["backup", &backup],
        &["stop", "waits"],
        &["delete", "waits", "--yes"],
        &["delete", HOSTILE, "--yes"],
        &["show", HOSTILE],
    ];
    let mut seen = String::new();
    for call in calls {
        for json in [&[][..], &["--json"]] {
            let Outcome { code, stdout, stderr, .. } = c.evocache(&[call, json].concat());
            harmless(&format!("{call:?} {json:?}, exit code {code}, stdout"), &stdout);
            harmless(&format!("{call:?} {json:?}, exit code {code}, stderr"), &stderr);
            seen += &stdout;
            seen += &stderr;
        }
    }
    assert!(seen.contains("x\\u{1b}[2J") && seen.contains("\\u202e"), "what is hostile was never shown");
    for file in std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|ending| ending != "png") {
            harmless(&file.display().to_string(), &std::fs::read_to_string(&file).unwrap());
        }
    }
    // For machines it is what it was.
    assert_eq!(workers[0]["name"], HOSTILE);
    let failed = c.evocache(&["show", "fails", "--json"]).json();
    assert!(failed["end_reason"].as_str().unwrap().contains(HOSTILE), "{failed:#}");
    assert_eq!((&failed["state"], &failed["spec"]["labels"][HOSTILE]), (&"failed".into(), &HOSTILE.into()));

    c.stop();
    for json in [&[][..], &["--json"]] {
        let checked = evocache(&[&["store", "check", "--data", data.to_str().unwrap()], json].concat());
        harmless("store check", &format!("{}{}", checked.ok().stdout, checked.stderr));
    }
    let help = evocache(&["--help"]).stdout;
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for verb in verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let verb = verb.split_whitespace().next().unwrap();
        let known =
            verb == "store" || calls.iter().any(|call| call[0] == verb) || SILENT.iter().any(|(v, _)| *v == verb);
        assert!(known, "the verb '{verb}' is not tried with hostile texts");
    }
}

#[test]
fn no_log_lets_a_text_act_on_the_terminal() {
    for format in ["text", "json"] {
        let folder = tempfile::tempdir().unwrap();
        let spec = hostile_spec(folder.path());
        let log = folder.path().join("log");
        let c = Coordinator::start_logged(
            &folder.path().join("data"),
            &["-vv", "--log-format", format],
            Stdio::from(File::create(&log).unwrap()),
        );
        c.evocache(&["launch", &spec, "--id", "fails"]).ok();
        give_up(&c.url, "fails", &hostile_worker(), HOSTILE);
        c.stop();
        let log = std::fs::read_to_string(&log).unwrap();
        harmless(format, &log);
        assert!(log.contains("[2J"), "the worker's texts are not in the log: {log}");
        for line in log.lines() {
            match format {
                "json" => assert!(serde_json::from_str::<Value>(line).unwrap()["level"].is_string(), "{line}"),
                // Each begins with a time, or is one of the verb's own notes.
                _ => assert!(line.starts_with("20") || line.contains("coordinator at") || line == "stopping", "{line}"),
            }
        }
    }
}
