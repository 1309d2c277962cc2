//! Specification files, good and bad.

use std::fs;
use std::time::Duration;

use evocache_proto::domain::Placement;
use evocache_proto::formats;

use super::*;

const GOOD: &str = r#"
id = "nightly"
seed = 3
[model]
name = "m"
[sampling]
steps = [20, 10]
guidance_scale = 3.0
[[objective]]
metric = "latency_ratio"
[[objective]]
metric = "clip_score"
direction = "maximize"
bound = 0.8
[budget]
evaluations = 100
wall_time = "1h30m"
[labels]
team = "a"
[[prompt]]
text = "an owl"
[[prompt]]
text = "a cat"
seed = 9
"#;

fn read(text: &str) -> Result<Specification, Failure> {
    let path = Path::new("dir/search.toml");
    SpecFile::parse(text, path)?.resolve(path)
}

#[test]
fn a_short_file_is_a_whole_specification() {
    let Specification { id, spec, start_from, warnings } = read(GOOD).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(id.unwrap().as_str(), "nightly");
    assert_eq!(spec.seed, 3);
    assert_eq!(spec.objectives[0].direction, Direction::Minimize);
    assert_eq!(spec.objectives[1].bound, Some(0.8));
    assert_eq!(spec.budget.wall_time, Some(Duration::from_secs(5400)));
    assert_eq!(spec.prompts[0].seed, 0);
    assert_eq!(spec.prompts[1].seed, 9);
    assert_eq!(spec.plan.batch, 4);
    assert!(!spec.forecast && spec.algorithm.seeds && spec.algorithm.remeasure);
    assert!(start_from.is_empty() && spec.algorithm.rungs.is_empty() && spec.budget.stagnation.is_none());
}

#[test]
fn placement_is_read() {
    let more = "[placement]\npriority = -2\nweight = 5\ndevice = \"H100\"\nmemory = \"40GiB\"\nlabels = { zone = \"a\" }\n[labels]";
    let Specification { spec, .. } = read(&GOOD.replace("[labels]", more)).unwrap();
    let placement = &spec.placement;
    assert_eq!((placement.priority, placement.weight, placement.memory_bytes), (-2, 5, 40 << 30));
    for (memory, bytes) in [("\"8G\"", 8_000_000_000), ("8000000000", 8_000_000_000)] {
        let text = GOOD.replace("[labels]", &more.replace("\"40GiB\"", memory));
        assert_eq!(read(&text).unwrap().spec.placement.memory_bytes, bytes, "{memory}");
    }
    assert_eq!((placement.device.as_str(), placement.labels["zone"].as_str()), ("H100", "a"));
    assert_eq!(read(GOOD).unwrap().spec.placement, Placement::default());
}

#[test]
fn every_setting_of_budget_and_algorithm_is_read() {
    let more = "stagnation = 40\n[algorithm]\nstrategy = \"nsga2\"\nremeasure = false\nrungs = [1]\n[labels]";
    let text = GOOD.replace("seed = 3", "start_from = [\"other-search\"]").replace("[labels]", more);
    let Specification { spec, start_from, .. } = read(&text).unwrap();
    assert_eq!(start_from.iter().map(SearchId::as_str).collect::<Vec<_>>(), ["other-search"]);
    assert_eq!(spec.budget.stagnation, Some(40));
    assert_eq!((spec.algorithm.strategy, spec.algorithm.rungs.as_slice()), (Strategy::Nsga2, &[1][..]));
    assert!(!spec.algorithm.remeasure);
    assert_eq!(read(&text.replace("nsga2", "imported")).unwrap().spec.algorithm.strategy, Strategy::Imported);
}

#[test]
fn every_wrong_field_is_named_with_what_is_allowed() {
    // What is replaced, by what, and what the message must say.
    let cases: &[(&str, &str, &[&str])] = &[
        ("seed = 3", "sead = 3", &["line 3", "sead", "expected one of", "seed"]),
        ("seed = 3", "seed = \"x\"", &["line 3", "expected u64"]),
        ("name = \"m\"", "nam = \"m\"", &["line 5", "nam", "name"]),
        ("name = \"m\"", "name = \"\"", &["model.name", "1 to 200"]),
        ("steps = [20, 10]", "steps = [10, 20]", &["sampling.steps[1]", "decrease strictly"]),
        ("steps = [20, 10]", "steps = []", &["sampling.steps", "1 to 16"]),
        ("guidance_scale = 3.0", "", &["guidance_scale", "missing"]),
        ("guidance_scale = 3.0", "guidance_scale = 1000.0", &["sampling.guidance_scale", "0 to 100"]),
        ("guidance_scale = 3.0", "guidance_scale = 3.0\nheight = 65", &["sampling.height", "multiple of 8"]),
        (
            "guidance_scale = 3.0",
            "guidance_scale = 3.0\n[[sampling.grid]]\nsteps = 10\ntimesteps = [9, 8]",
            &["sampling.grid[0]", "2 values for 10 steps"],
        ),
        ("direction = \"maximize\"", "direction = \"up\"", &["line 13", "up", "minimize", "maximize"]),
        ("direction = \"maximize\"", "", &["objective[1].direction", "clip_score", "maximize"]),
        ("metric = \"latency_ratio\"", "metric = \"psnr\"\ndirection = \"maximize\"", &["objective", "cost"]),
        (
            "metric = \"latency_ratio\"",
            "metric = \"latency_ratio\"\ndirection = \"maximize\"",
            &["objective[0]", "other way"],
        ),
        ("wall_time = \"1h30m\"", "wall_time = \"soon\"", &["line 17", "soon", "1h30m"]),
        ("wall_time = \"1h30m\"", "wall_time = 30", &["line 17", "'30' has no unit", "30s"]),
        ("wall_time = \"1h30m\"", "wall_time = true", &["line 17", "number with a unit"]),
        ("wall_time = \"1h30m\"", "walltime = \"1h\"", &["walltime", "wall_time"]),
        ("evaluations = 100\nwall_time = \"1h30m\"", "", &["budget", "at least one"]),
        ("[labels]\nteam = \"a\"", "[algorithm]\npopulation = 1", &["algorithm.population", "2 to 10000"]),
        ("[labels]\nteam = \"a\"", "[algorithm]\nstrategy = \"luck\"", &["luck", "steady_state", "nsga2"]),
        ("[labels]\nteam = \"a\"", "[algorithm]\nrungs = [2]", &["algorithm.rungs[0]", "all 2 prompts"]),
        ("[labels]\nteam = \"a\"", "[placement]\nweight = 0", &["placement.weight", "1 to 1000"]),
        ("[labels]\nteam = \"a\"", "[placement]\nmemory = \"much\"", &["line 19", "memory", "much"]),
        ("[labels]\nteam = \"a\"", "stagnation = 0", &["budget.stagnation", "positive"]),
        ("seed = 3", "start_from = [\"A\"]", &["start_from[0]", "a-z"]),
        ("[labels]\nteam = \"a\"", "[measurement]\nbatch = 0", &["measurement.batch", "1 to 1024"]),
        ("[labels]\nteam = \"a\"", "[measurement]\nimages = 4", &["images", "thumbnails"]),
        ("text = \"an owl\"", "text = \" \"", &["prompt[0].text"]),
        ("text = \"an owl\"", "txt = \"an owl\"", &["txt", "text"]),
        ("id = \"nightly\"", "id = \"Nightly\"", &["id", "a-z"]),
        ("id = \"nightly\"", "prompts = 3", &["prompts", "prompts_file"]),
        ("id = \"nightly\"", "prompts_file = \"p.txt\"", &["prompts_file", "not both"]),
        ("id = \"nightly\"", "import = [\"gone.json\"]", &["import[0]", "gone.json", "no such file"]),
        ("[model]", "[model", &["line 4"]),
    ];
    for (from, to, words) in cases {
        assert!(GOOD.contains(from), "the test itself is wrong: {from}");
        let failure = read(&GOOD.replacen(from, to, 1)).expect_err(to);
        assert_eq!(failure.exit.code(), 2);
        assert!(failure.message.contains("search.toml"), "{to:?}: no file name in {}", failure.message);
        for word in *words {
            assert!(failure.message.contains(word), "{to:?}: '{word}' is not in {}", failure.message);
        }
    }
}

#[test]
fn prompts_come_from_the_first_lines_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.txt"), "one\n\n  two \nthree\n").unwrap();
    let inline = &GOOD[GOOD.find("[[prompt]]").unwrap()..];
    let text = GOOD.replace(inline, "").replace("seed = 3", "prompts_file = \"p.txt\"\nprompts = 2\nfirst_seed = 7");
    let path = folder.path().join("s.toml");
    fs::write(&path, &text).unwrap();
    let prompts = load(&path).unwrap().spec.prompts.clone();
    assert_eq!(prompts, [("one", 7), ("two", 8)].map(|(text, seed)| Prompt { text: text.into(), seed }));

    fs::write(&path, text.replace("prompts = 2", "prompts = 4")).unwrap();
    let message = load(&path).unwrap_err().message;
    assert!(message.contains("4 are wanted") && message.contains("has 3"), "{message}");
    fs::write(&path, text.replace("p.txt", "q.txt")).unwrap();
    let message = load(&path).unwrap_err().message;
    assert!(message.contains("prompts_file") && message.contains("q.txt"), "{message}");
    assert!(load(&folder.path().join("none.toml")).unwrap_err().message.contains("none.toml"));
}

#[test]
fn schedules_of_both_formats_are_imported() {
    use std::sync::Arc;

    use evocache_proto::domain::{Decision, Layout, Schedule};

    let folder = tempfile::tempdir().unwrap();
    let layout = Arc::new(Layout::pixart(2).unwrap());
    let every = |n: u32| move |step: u32, _| if step.is_multiple_of(n) { Decision::Compute } else { Decision::Reuse };
    let a = Schedule::from_fn(layout.clone(), 20, every(2)).unwrap();
    let b = Schedule::from_fn(layout, 10, every(3)).unwrap();
    fs::write(folder.path().join("a.json"), formats::write_own(&a, None)).unwrap();
    fs::write(folder.path().join("b.json"), formats::write_ecad(&b, "b").unwrap()).unwrap();
    let path = folder.path().join("s.toml");
    fs::write(&path, GOOD.replace("seed = 3", "import = [\"a.json\", \"b.json\"]")).unwrap();
    let imported = load(&path).unwrap().spec.imported.clone();
    assert_eq!(imported.iter().map(|i| &i.schedule).collect::<Vec<_>>(), [&a, &b]);

    // A setting that a file was made with and that the search does not have gives a warning.
    let with = |more: &str| {
        let text = formats::write_ecad(&b, "b").unwrap();
        fs::write(folder.path().join("b.json"), text.replacen('{', &format!("{{{more}, "), 1)).unwrap();
        load(&path).map(|specification| specification.warnings)
    };
    assert_eq!(with("\"guidance_scale\": 3").unwrap(), Vec::<String>::new());
    let warnings = with("\"guidance_scale\": 5, \"height\": 512").unwrap();
    assert!(
        warnings[0].contains("'b.json': made with guidance_scale 5") && warnings[1].contains("height 512"),
        "{warnings:?}"
    );
    let message = with("\"pipeline\": \"tgate\"").unwrap_err().message;
    assert!(message.contains("import[1]") && message.contains("'tgate'"), "{message}");

    fs::write(folder.path().join("b.json"), "{}").unwrap();
    let message = load(&path).unwrap_err().message;
    assert!(message.contains("import[1]") && message.contains("evocache_schedule"), "{message}");
    // The coordinator moves it to a step count of the search.
    fs::write(&path, GOOD.replace("seed = 3", "import = [\"a.json\"]").replace("[20, 10]", "[10]")).unwrap();
    assert_eq!(load(&path).unwrap().spec.imported[0].schedule, a);
}

#[test]
fn the_examples_are_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let emoji = load(&examples.join("emoji.toml")).unwrap();
    assert_eq!(emoji.spec.prompts.len(), 16);
    assert_eq!(emoji.spec.sampling.baseline_steps(), 20);
    let pixart = load(&examples.join("pixart-alpha-512.toml")).unwrap();
    assert_eq!(pixart.spec.sampling.height, Some(512));
}
