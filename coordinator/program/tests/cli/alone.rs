//! What needs no coordinator: help, wrong command lines, wrong files.

use crate::support::{SPEC, command, evocache, write};

#[test]
fn help_has_examples_and_is_data() {
    for args in [
        &["--help"][..],
        &["best", "--help"],
        &["launch", "--help"],
        &["serve", "--help"],
        &["explain", "--help"],
        &["validate", "--help"],
        &["store", "backup", "--help"],
        &["simulate", "--help"],
    ] {
        let outcome = evocache(args);
        assert!(outcome.ok().stdout.contains("Example"), "{args:?}: {}", outcome.stdout);
        assert!(outcome.stderr.is_empty());
    }
    assert!(!evocache(&["--help"]).stdout.contains("worker-process"), "that verb is not for people");
    assert!(evocache(&["--version"]).ok().stdout.starts_with("evocache "));
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for args in [
        &["launch"][..],
        &["frobnicate"],
        &["best", "s", "--where", "psnr"],
        &["best", "s", "--max-latency", "soon"],
        &["show", "Not An Id"],
        &["serve", "--listen", "nowhere"],
        &["list", "--coordinator", "ftp://host:1"],
        &["delete", "s"],
        &["explain", "s", "owl"],
        &["launch", "s.toml", "--start-from", "Not An Id"],
        &["validate", "s"],
        &["validate", "s", "--prompts-file", "p.txt", "--quality-ratio", "much"],
    ] {
        evocache(args).fails(2, &[]);
    }
}

#[test]
fn flags_about_a_coordinator_are_for_verbs_that_call_one() {
    for verb in [&["serve"][..], &["store", "check"], &["token", "new"], &["completions"], &["simulate"]] {
        let help = evocache(&[verb, &["--help"]].concat());
        let text = &help.ok().stdout;
        assert!(!text.contains("--coordinator <") && !text.contains("--token-file <"), "{verb:?}: {text}");
        let output = text.find("Output:").unwrap();
        assert!(text.find("--json").unwrap() > output && text.find("--verbose").unwrap() > output, "{verb:?}: {text}");
    }
    let list = evocache(&["list", "--help"]).stdout;
    let at = |word: &str| list.find(word).unwrap_or_else(|| panic!("{word} is not in {list}"));
    assert!(
        at("Coordinator:") < at("--coordinator")
            && at("Security:") < at("--token-file")
            && at("Output:") < at("--json")
    );
    for args in [&["completions", "bash", "--coordinator", "http://h:1"][..], &["--ca", "x", "completions", "bash"]] {
        evocache(args).fails(2, &["is for verbs that call a coordinator; 'completions' does not"]);
    }
    assert_eq!(
        command(&["completions", "bash"]).env("EVOCACHE_COORDINATOR", "x").output().unwrap().status.code(),
        Some(0)
    );
}

#[test]
fn values_are_read_with_their_units_everywhere() {
    for (args, words) in [
        (&["serve", "--lease-ttl", "60"][..], "'60' has no unit; write 60s"),
        (&["best", "s", "--min-quality-ratio", "98"], "write 98% or 0.98"),
        (&["best", "s", "--max-latency", "35"], "has no unit"),
        (&["serve", "--listen", "7447"], "it has no port"),
        (&["serve", "--reserve", "1XB"], "is not a size"),
        (&["front", "s", "--svg", "a.png"], "it is written as SVG; name it like a.svg"),
        (&["front", "s", "--sheet", "a.jpg"], "it is written as PNG; name it like a.png"),
    ] {
        evocache(args).fails(2, &[words]);
    }
    // Understood: what is wrong is only that nobody listens.
    for args in
        [["--min-speedup", "2x"], ["--min-quality-ratio", "98%"], ["--max-cache", "8G"], ["--max-latency", "1.5s"]]
    {
        evocache(&[&["best", "s", "--coordinator", "127.0.0.1:1"][..], &args].concat()).fails(1, &["not reachable"]);
    }
}

#[test]
fn every_origin_is_explained() {
    let help = evocache(&["explain", "--help"]).stdout;
    for word in [
        "uncached",
        "fewer-steps",
        "fora",
        "even",
        "staggered",
        "component-intervals",
        "gate",
        "step-mask",
        "density",
        "forecast",
        "smooth",
        "path",
        "random",
        "four-point",
        "uniform",
        "rectangle",
        "whole-step",
        "whole-block",
        "whole-component",
        "flip",
        "shift",
        "copy-step",
        "fill",
        "gap",
        "toggle-forecast",
        "migrate",
        "model-",
        "remeasure",
    ] {
        assert!(help.contains(word), "'{word}' is not in {help}");
    }
}

#[test]
fn a_coordinator_that_is_gone_is_named_with_a_way_out() {
    // Port 1 is reserved and nobody listens there.
    let outcome = evocache(&["list", "--coordinator", "http://127.0.0.1:1"]);
    outcome.fails(1, &["coordinator at http://127.0.0.1:1 is not reachable", "refused", "hint:", "evocache serve"]);
    assert!(outcome.stdout.is_empty());
    assert!(!outcome.stderr.contains('\x1b'), "no colours where there is no terminal");
}

#[test]
fn a_wrong_specification_is_told_without_a_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.toml");
    let launch = |text: &str| {
        std::fs::write(&path, text).unwrap();
        evocache(&["launch", path.to_str().unwrap(), "--coordinator", "http://127.0.0.1:1"])
    };
    launch(&SPEC.replace("batch = 2", "bach = 2")).fails(2, &["s.toml", "line 9", "bach", "expected one of", "batch"]);
    launch(&SPEC.replace("[10, 6]", "[6, 10]")).fails(2, &["s.toml", "sampling.steps[1]", "decrease strictly"]);
    launch(&SPEC.replace("[model]", "[model")).fails(2, &["s.toml", "line 3"]);
    evocache(&["launch", "gone.toml"]).fails(2, &["gone.toml", "no such file", "hint:"]);
    launch(SPEC).fails(1, &["not reachable"]);
}

#[test]
fn wrong_prompts_are_told_without_a_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "held-out.txt", "a dog\n\na tree\n");
    let validate = |args: &[&str]| {
        evocache(&[&["validate", "s", "--coordinator", "http://127.0.0.1:1", "--prompts-file"], args].concat())
    };
    validate(&["gone.txt"]).fails(2, &["--prompts-file", "gone.txt", "no such file"]);
    validate(&[&file, "--prompts", "3"]).fails(2, &["--prompts:", "3 are wanted", "has 2"]);
    validate(&[&file]).fails(1, &["not reachable"]);
}

#[test]
fn completions_are_scripts_for_each_shell() {
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete -c evocache")] {
        assert!(evocache(&["completions", shell]).ok().stdout.contains(word), "{shell}");
    }
}

#[test]
#[cfg(feature = "local")]
fn local_refuses_before_it_starts_anything() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    evocache(&["local", "--out", out, "--resume"]).fails(3, &["no search", "hint:"]);
    std::fs::write(folder.path().join("front.json"), "{}").unwrap();
    evocache(&["local", "--out", out]).fails(2, &["not empty", "--resume"]);
    evocache(&["local", "--out", "/dev/null/x"]).fails(1, &["/dev/null/x"]);
    evocache(&["local", "--model", out, "--out", "unused"]).fails(2, &["model_index.json", "hint:"]);
    evocache(&["local", "--spec", "gone.toml", "--out", "unused"]).fails(2, &["gone.toml"]);
    evocache(&["local", "--budget", "0"]).fails(2, &["--budget"]);
}
