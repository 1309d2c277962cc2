//! Schedules as JSON: round trips, the golden files of the runs with diffusers, and every kind of invalid file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use evocache_proto::domain::{BlockGroup, Component, Decision, Grid, Layout, Schedule};
use evocache_proto::formats::{FormatError, read, read_whole, write_ecad, write_own};
use proptest::prelude::*;

fn layouts() -> [Arc<Layout>; 2] {
    [Arc::new(Layout::pixart(3).unwrap()), Arc::new(Layout::flux(2, 3).unwrap())]
}

fn schedule(layout: &Arc<Layout>, steps: u32, letters: &[u8], forecast: bool) -> Schedule {
    let slots = layout.slots();
    Schedule::from_fn(layout.clone(), steps, |step, slot| {
        match letters[(step as usize * slots + slot) % letters.len()] % if forecast { 3 } else { 2 } {
            0 => Decision::Compute,
            1 => Decision::Reuse,
            _ => Decision::Forecast,
        }
    })
    .unwrap()
}

proptest! {
    #[test]
    fn our_format_gives_back_what_it_was_given(steps in 1u32..12, letters in proptest::collection::vec(0u8..6, 1..200)) {
        for layout in layouts() {
            let schedule = schedule(&layout, steps, &letters, true);
            prop_assert_eq!(read(&write_own(&schedule, None)).unwrap(), schedule);
        }
    }

    #[test]
    fn ecads_format_gives_back_what_it_can_express(steps in 1u32..12, letters in proptest::collection::vec(0u8..6, 1..200)) {
        for layout in layouts() {
            let schedule = schedule(&layout, steps, &letters, false);
            prop_assert_eq!(read(&write_ecad(&schedule, "test").unwrap()).unwrap(), schedule);
        }
    }
}

#[test]
fn the_golden_schedules_compute_the_share_that_their_card_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../worker/models/emoji/golden");
    for (file, share) in [
        ("cached_all_compute", 1.0),
        ("cached_fora_3", 0.35),
        ("cached_intervals_2_6_4", 0.317),
        ("cached_random_0.4", 0.421),
    ] {
        let text = std::fs::read_to_string(folder.join(format!("{file}.json"))).unwrap();
        let schedule = read(&text).unwrap();
        assert_eq!((schedule.steps(), schedule.slots()), (20, 36), "{file}");
        assert!((1.0 - schedule.cache_hit_rate() - share).abs() < 6e-4, "{file}: {}", schedule.cache_hit_rate());
        let ours: serde_json::Value = serde_json::from_str(&write_ecad(&schedule, file).unwrap()).unwrap();
        let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(ours["cache_schedule"]["schedule"], theirs["cache_schedule"]["schedule"], "{file}");
    }
}

#[test]
fn what_ecad_cannot_express_is_refused() {
    let layout = Arc::new(Layout::pixart(1).unwrap());
    let forecast = schedule(&layout, 4, &[0, 0, 0, 0, 2], true);
    assert!(forecast.forecasts());
    assert!(matches!(write_ecad(&forecast, "x"), Err(FormatError::Inexpressible(text)) if text.contains("forecast")));
    let other = BlockGroup { name: "layer".into(), count: 2, components: vec![Component::new("mlp")] };
    let other = Schedule::all_compute(Arc::new(Layout::new(vec![other]).unwrap()), 2).unwrap();
    assert!(matches!(write_ecad(&other, "x"), Err(FormatError::Inexpressible(text)) if text.contains("layer*2[mlp]")));
}

/// An ECAD file for one block and two steps, with `steps` as its schedule and `more` beside `cache_schedule`.
fn ecad(steps: &str, more: &str) -> String {
    format!(
        r#"{{"cache_schedule": {{"name": "n", "num_blocks": 1, "num_inference_steps": 2, "attributes": {{"gate_step": 1}},
        "schedule": {{{steps}}}}}{more}}}"#
    )
}

const BLOCK: &str = r#"{"0": {"attn1": true, "attn2": true, "ff": true}}"#;

#[test]
fn steps_are_numbered_as_ecad_reads_them() {
    let padded = read(&ecad(&format!(r#""000": {BLOCK}, "001": {BLOCK}"#), "")).unwrap();
    for names in [["0", "1"], ["1", "0"], ["00", " 1 "]] {
        let [a, b] = names;
        assert_eq!(read(&ecad(&format!(r#""{a}": {BLOCK}, "{b}": {BLOCK}"#), "")).unwrap(), padded, "{names:?}");
    }
    let with_mark = format!("\u{feff}{}", ecad(&format!(r#""0": {BLOCK}, "1": {BLOCK}"#), ""));
    assert_eq!(read(&with_mark).unwrap(), padded);
}

#[test]
fn how_a_schedule_sampled_is_read_from_what_stands_beside_it() {
    let schedule = schedule(&Arc::new(Layout::pixart(1).unwrap()), 3, &[0, 1], false);
    let file = |grid: &str| {
        let about =
            format!(r#"{{"made_for": {{"sampling": {{"guidance_scale": 3.0, "height": null, "grids": [{grid}]}}}}}}"#);
        write_own(&schedule, Some(serde_json::from_str(&about).unwrap()))
    };
    let other = r#"{"steps": 5, "solver_order": 2}"#;
    let grid = r#"{"steps": 3, "solver_order": 1, "timesteps": [900, 500, 50], "sigmas": []}"#;
    let told = read_whole(&file(&format!("{other}, {grid}"))).unwrap();
    let expected = Grid { steps: 3, solver_order: Some(1), timesteps: vec![900, 500, 50], sigmas: vec![] };
    assert_eq!(told.grid.as_ref(), Some(&expected));
    assert_eq!(expected.to_string(), "solver order 1, timesteps 900,500,50");
    assert_eq!(told.made_with, [("guidance_scale".to_owned(), "3".to_owned())]);
    assert_eq!(read_whole(&file(other)).unwrap().grid, None, "of another step count");
    assert_eq!(read_whole(&write_own(&schedule, None)).unwrap().grid, None);
    for wrong in [
        r#"{"steps": 3, "solver_order": 1, "timesteps": "900,500,50"}"#,
        r#"{"steps": 3, "solver_order": 1, "timesteps": [900, "x", 50]}"#,
        r#"{"steps": 3, "solver_order": "1"}"#,
        r#"{"steps": 3, "timesteps": [900, 50]}"#,
        r#"{"steps": 3}"#,
    ] {
        assert!(read_whole(&file(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn what_a_schedule_of_ecad_was_made_with_is_told() {
    let steps = format!(r#""0": {BLOCK}, "1": {BLOCK}"#);
    let more = r#", "height": 512, "guidance_scale": 4.5, "width": null, "metrics": {"total_macs": 3},
        "config": {"transformer_weights": "PixArt-alpha/PixArt-XL-2-1024-MS"}"#;
    let told = read_whole(&ecad(&steps, more)).unwrap().made_with;
    let told: Vec<(&str, &str)> = told.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
    assert_eq!(
        told,
        [
            ("config.transformer_weights", "PixArt-alpha/PixArt-XL-2-1024-MS"),
            ("guidance_scale", "4.5"),
            ("height", "512")
        ]
    );
}

#[test]
fn what_only_ecads_code_can_run_is_refused_by_its_field() {
    let steps = |second: &str| format!(r#""0": {BLOCK}, "1": {second}"#);
    let component = |more: &str| format!(r#"{{"0": {{"attn1": true, "attn2": false, "ff": true, {more}}}}}"#);
    let tgate = r#""custom_compute_attn": {"name": "compute_attn_tgate", "kwargs": {"gate_step": 1}}"#;
    let block = r#"{"attn1": true, "attn2": true, "ff": true}"#;
    for (steps_and_more, expected) in [
        (
            (steps(&component(tgate)), ""),
            "cache_schedule.schedule.1.0.custom_compute_attn: 'compute_attn_tgate' replaces",
        ),
        (
            (steps(&component(r#""custom_compute_ff": {"name": "f"}"#)), ""),
            "schedule.1.0.custom_compute_ff: 'f' replaces",
        ),
        (
            (steps(&component(r#""attn3": true"#)), ""),
            "cache_schedule.schedule.1.0.attn3: the block has no such component",
        ),
        (
            (steps(&format!(r#"{{"0": {block}, "1": {block}}}"#)), ""),
            "cache_schedule.schedule.1.1: the model has no such block",
        ),
        ((format!(r#"{}, "2": {BLOCK}"#, steps(BLOCK)), ""), "cache_schedule.schedule.2: num_inference_steps is 2"),
        ((format!(r#"{}, "01": {BLOCK}"#, steps(BLOCK)), ""), "is step 1 again"),
        ((format!(r#"{}, "x": {BLOCK}"#, steps(BLOCK)), ""), "cache_schedule.schedule.x: is not a step number"),
        (
            (steps(BLOCK), r#", "config": {"pipeline": {"name": "tgate", "kwargs": {}}}"#),
            "config.pipeline: 'tgate' is a sampling pipeline",
        ),
        ((steps(BLOCK), r#", "pipeline": "tgate""#), "pipeline: 'tgate' is a sampling pipeline"),
        ((steps(BLOCK), r#", "skip_layers": [1]"#), "skip_layers: is not a field"),
        ((steps(&component(r#""custom_compute_attn": {}"#)), ""), ""),
    ] {
        let (steps, more) = steps_and_more;
        match read(&ecad(&steps, more)) {
            Ok(_) => assert_eq!(expected, "", "read: {steps} {more}"),
            Err(error) => assert!(!expected.is_empty() && error.to_string().contains(expected), "{error} / {expected}"),
        }
    }
}

#[test]
fn a_bad_file_is_told_by_its_field() {
    let good = write_own(&schedule(&layouts()[0], 4, &[0, 1], false), None);
    let spoil = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} is not in {good}");
        good.replacen(from, to, 1)
    };
    for (text, expected) in [
        ("{".to_owned(), "not JSON"),
        ("{}".to_owned(), "neither an evocache schedule"),
        (spoil("\"evocache_schedule\": 1", "\"evocache_schedule\": 2"), "evocache_schedule"),
        (spoil("\"steps\": 4", "\"steps\": -1"), "steps"),
        (spoil("\"steps\": 4", "\"steps\": 5"), "decisions.block.0.attn1"),
        (spoil("\"block.1.ff\"", "\"block.9.ff\""), "decisions.block.1.ff: is missing"),
        (spoil("\"block.2.ff\"", "\"block.1.no\": \"CCCC\", \"block.2.ff\""), "decisions.block.1.no: is not a slot"),
        (spoil("\"steps\": 4", "\"guide\": 1, \"steps\": 4"), "guide: is not a field"),
        (spoil("\"count\": 3", "\"count\": 0"), "layout"),
        (spoil("\"id\": \"", "\"id\": \"00"), "id: is 00"),
        ("{\"cache_schedule\": {}}".to_owned(), "cache_schedule.num_blocks"),
        (
            "{\"cache_schedule\": {\"num_blocks\": 1, \"num_inference_steps\": 2, \"schedule\": {}}}".to_owned(),
            "cache_schedule.schedule.001.0.attn1",
        ),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not name {expected:?}");
    }
}
