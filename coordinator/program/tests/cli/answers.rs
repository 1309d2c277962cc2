//! A whole search, and what the command line makes of its results.

use evocache_proto::formats;
use serde_json::Value;

use crate::support::{Coordinator, spec_file};
use crate::worker::work;

#[test]
fn a_finished_search_answers_questions_and_fills_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    assert_eq!(work(&c.url, "s"), 60);

    let shown = c.evocache(&["show", "s", "--json"]).json();
    assert_eq!(shown["state"], "completed");
    assert_eq!(shown["progress"]["evaluations"], 60);
    let workers = c.evocache(&["workers", "--json"]).json();
    assert_eq!((&workers[0]["name"], &workers[0]["completed"]), (&"scripted/0".into(), &60.into()));
    let id = workers[0]["worker_id"].as_str().unwrap();
    assert_eq!(c.evocache(&["drain", id, "--json"]).json()["state"], "draining");
    let watched = c.evocache(&["watch", "s"]);
    assert!(watched.ok().stderr.contains("60/60 evaluations | completed"), "{}", watched.stderr);

    // The front, as table, JSON and files.
    let out = folder.path().join("results");
    let table = c.evocache(&["front", "s", "--rows", "5", "--out", out.to_str().unwrap()]);
    assert!(table.ok().stdout.contains("speed-up") && table.stdout.contains("of the seeds alone"), "{}", table.stdout);
    assert!(table.stdout.lines().take_while(|line| !line.is_empty()).count() <= 8, "{}", table.stdout);
    assert!(table.stdout.contains("ms/image: the uncached 10.00 ms on"), "{}", table.stdout);
    assert!(table.stdout.contains(" n ") && table.stdout.contains(" %"), "{}", table.stdout);
    let front = c.evocache(&["front", "s", "--json"]).json();
    let file: Value = serde_json::from_str(&std::fs::read_to_string(out.join("front.json")).unwrap()).unwrap();
    assert_eq!(front, file);
    let members = front["evaluations"].as_array().unwrap();
    let speedups: Vec<f64> = members.iter().map(|e| e["speedup"].as_f64().unwrap()).collect();
    assert!(speedups.len() > 3 && speedups.iter().rev().is_sorted(), "fastest first: {speedups:?}");
    let svg = std::fs::read_to_string(out.join("front.svg")).unwrap();
    assert!(svg.contains("98 % quality") && svg.contains("knee"));
    let sheet = png::Decoder::new(std::io::Cursor::new(std::fs::read(out.join("sheet.png")).unwrap()));
    assert!(sheet.read_info().unwrap().info().width > 4 * 32);

    // The chosen schedules are the same in both formats.
    for key in ["best-98", "best-2x", "knee"] {
        let read = |name: String| formats::read(&std::fs::read_to_string(out.join(name)).unwrap()).unwrap();
        assert_eq!(read(format!("{key}.json")), read(format!("{key}.ecad.json")), "{key}");
    }

    // Questions.
    let best = c.evocache(&["best", "s", "--min-quality-ratio", "98%", "--json"]).json();
    assert!(best["quality_ratio"].as_f64().unwrap() >= 0.98 && best["speedup"].as_f64().unwrap() > 1.0, "{best:#}");
    let text = c.evocache(&["best", "s", "--min-speedup", "2", "--prefer", "quality"]);
    assert!(text.ok().stdout.contains("x faster"), "{}", text.stdout);
    let one = folder.path().join("one.json");
    let one = one.to_str().unwrap();
    c.evocache(&["best", "s", "--prefer", "knee", "--out", one, "--format", "ecad"]).ok();
    let written = formats::read_ecad(&std::fs::read_to_string(one).unwrap()).unwrap();
    let piped = c.evocache(&["best", "s", "--prefer", "knee", "--out", "-"]);
    assert_eq!(formats::read_own(&piped.ok().stdout).unwrap(), written);
    c.evocache(&["best", "s", "--min-speedup", "1000x"]).fails(3, &["speed-up >= 1000.00x", "nearest, with speed-up"]);
    let both = ["best", "s", "--min-quality-ratio", "98%", "--where", "speedup>=1.2x", "--where", "clip_score>=0.85"];
    assert!(c.evocache(&both).ok().stdout.contains("of it kept"));
    c.evocache(&["best", "s", "--where", "pnsr>=28"]).fails(2, &["no metric 'pnsr' is measured", "clip_score"]);
    c.evocache(&["best", "s", "--min-quality-ratio", "98"]).fails(2, &["9800 %", "98% or 0.98"]);
    c.evocache(&["best", "s", "--max-latency", "1us"]).fails(3, &["nearest"]);
    c.evocache(&["best", "s", "--out", "/dev/null/x"]).fails(1, &["/dev/null/x"]);
}

#[test]
fn a_front_tells_how_often_its_latencies_were_measured() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    work(&c.url, "s");
    let front = c.evocache(&["front", "s", "--json"]).json();
    for e in front["evaluations"].as_array().unwrap() {
        let ratio = &e["estimated_latency_ratio"];
        assert!(ratio["measurements"].as_u64() > Some(0), "{e:#}");
        assert!((e["speedup"].as_f64().unwrap() - 1.0 / ratio["value"].as_f64().unwrap()).abs() < 1e-9, "{e:#}");
    }
}

#[test]
fn figures_on_a_screen_and_in_a_file_follow_from_each_other() {
    let folder = tempfile::tempdir().unwrap();
    // The second quality metric of an objective is told as well, and the bound is kept.
    let spec = crate::support::SPEC.replace("direction = \"maximize\"\n", "direction = \"maximize\"\nbound = 0.85\n");
    let spec = crate::support::write(folder.path(), "search.toml", &spec);
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    work(&c.url, "s");
    let front = c.evocache(&["front", "s", "--json"]).json();
    let reference = front["reference_latencies"][0]["uncached_us"].as_f64().unwrap();
    let best = c.evocache(&["best", "s", "--json"]).json();
    let baseline = [&front["baseline"], &best["baseline"]];
    assert!(baseline.iter().all(|b| b["speedup"] == 1.0 && b["estimated_latency_us"] == reference), "{baseline:#?}");
    let members = front["evaluations"].as_array().unwrap();
    for e in members.iter().chain([&best["evaluation"]]) {
        let ratio = e["estimated_latency_ratio"]["value"].as_f64().unwrap();
        let latency = e["estimated_latency_us"].as_f64().unwrap();
        assert!((latency - ratio * reference).abs() < 1e-6 * reference, "{e:#}");
        assert!((e["speedup"].as_f64().unwrap() * ratio - 1.0).abs() < 1e-9, "{e:#}");
        assert!(e["measured"]["clip_score"].as_f64().unwrap() >= 0.85, "out of bounds: {e:#}");
    }
    assert!(members.iter().all(|e| e["within_bounds"] == true));
    let hypervolume = front["hypervolume"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&hypervolume), "{hypervolume}");
    // The same on the screen.
    let told = c.evocache(&["best", "s"]);
    let latency = best["evaluation"]["estimated_latency_us"].as_f64().unwrap() / 1e3;
    let speedup = best["speedup"].as_f64().unwrap();
    let line = format!("{speedup:.2}x faster: estimated {latency:.2} ms");
    assert!(told.ok().stdout.contains(&line), "'{line}' is not in {}", told.stdout);
    // Beyond the bounds there is more, and a miss says so.
    let beyond = c.evocache(&["best", "s", "--ignore-bounds", "--json"]).json();
    assert!(beyond["evaluation"]["measured"]["clip_score"].as_f64().unwrap() < 0.85, "{beyond:#}");
    let fastest = format!("{}x", beyond["speedup"].as_f64().unwrap() * 0.99);
    c.evocache(&["best", "s", "--min-speedup", &fastest]).fails(3, &["outside of the bound clip_score >= 0.85"]);
    // A list leaves the prompts out, and yet says how many there are.
    assert_eq!(c.evocache(&["list", "--json"]).json()[0]["spec"]["prompts"], 2);
}
