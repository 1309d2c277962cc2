//! The verbs of the binary on the bundled model.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

use candle_core::{Device, Tensor};
use common::{Golden, model_dir};

fn worker(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_evocache-worker")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A PNG file as `[3, h, w]` in [0, 1].
fn read_png(path: &std::path::Path) -> Tensor {
    let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    let (height, width) = (info.height as usize, info.width as usize);
    let values: Vec<f32> = bytes[..3 * height * width].iter().map(|&b| f32::from(b) / 255.0).collect();
    Tensor::from_vec(values, (height, width, 3), &Device::Cpu).unwrap().permute((2, 0, 1)).unwrap()
}

#[test]
fn generate_draws_the_picture_that_diffusers_draws_for_a_seed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("picture.png");
    let (model, path) = (model_dir(), out.to_str().unwrap());
    let model = model.to_str().unwrap();
    let plain = Golden::read("prompt_1");
    let said = worker(&[
        "generate",
        "--model",
        model,
        "--prompt",
        plain.text("prompt"),
        "--seed",
        plain.text("seed"),
        "--guidance",
        plain.text("guidance_scale"),
        "--out",
        path,
    ]);
    assert!(said.contains("20 steps, 720 slots computed, 0 reused"), "{said}");
    let wanted = plain.tensor("image").get(0).unwrap();
    assert!(common::mean_difference(&read_png(&out), &wanted) < 1.0 / 255.0);

    let cached = Golden::read("cached_fora_3");
    let (prompts, seeds): (Vec<String>, Vec<u64>) = (cached.json("prompts"), cached.json("seeds"));
    let schedule = model_dir().join("golden/cached_fora_3.json");
    // diffusers lowers and strips prompts, so this is the same one.
    let prompt = format!("  {} ", prompts[1].to_uppercase());
    let said = worker(&[
        "generate",
        "--model",
        model,
        "--prompt",
        &prompt,
        "--seed",
        &seeds[1].to_string(),
        "--guidance",
        "3",
        "--schedule",
        schedule.to_str().unwrap(),
        "--out",
        path,
    ]);
    assert!(said.contains("252 slots computed, 468 reused, 0 forecast"), "{said}");
    let wanted = cached.tensor("image").get(1).unwrap();
    assert!(common::mean_difference(&read_png(&out), &wanted) < 1.0 / 255.0);
}

#[test]
fn inspect_shows_slots_parameters_and_costs() {
    let model = model_dir();
    let model = model.to_str().unwrap();
    let text = worker(&["inspect", "--model", model]);
    for part in
        ["PixArtAlphaPipeline", "block*12[attn1,attn2,ff] = 36 slots", "64x64 pixels, 24 text tokens", "block.attn2"]
    {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&worker(&["inspect", "--model", model, "--json"])).unwrap();
    // 64 tokens of 128 in two passes: 4 projections, and scores and values of 64 tokens.
    assert_eq!(json["components"][0]["macs"], 2 * (64 * 4 * 128 * 128 + 2 * 64 * 64 * 128));
    assert_eq!(json["components"][1]["macs"], 2 * (64 * 2 * 128 * 128 + 24 * 2 * 128 * 128 + 2 * 64 * 24 * 128));
    assert_eq!(json["components"][2]["macs"], 2 * 64 * 8 * 128 * 128);
    assert_eq!(json["components"][0]["cache_bytes"], 2 * 64 * 128 * 4);
    assert_eq!(json["parameters"]["transformer"], 3_362_976);
    assert_eq!(json["fingerprint"].as_str().unwrap().len(), 64);
}

#[test]
fn bench_prints_ten_schedules_and_a_line_through_them() {
    let model = model_dir();
    let arguments = ["bench", "--model", model.to_str().unwrap(), "--batch", "2", "--steps", "4", "--repeats", "1"];
    let json: serde_json::Value = serde_json::from_str(&worker(&[&arguments[..], &["--json"]].concat())).unwrap();
    let schedules = json["schedules"].as_array().unwrap();
    assert_eq!(schedules.len(), 10);
    let macs: Vec<u64> = schedules.iter().map(|s| s["macs"].as_u64().unwrap()).collect();
    assert!(macs.is_sorted() && macs[9] == schedules[9]["baseline_macs"].as_u64().unwrap(), "{macs:?}");
    assert!(json["fit"]["us_per_mac"].is_number());
}

#[test]
fn check_compares_every_family_with_diffusers() {
    let folders = ["pixart1024", "flux", "dit", "sd35"]
        .map(|name| format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR")));
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let said = worker(&[&["check"], &folders[..]].concat());
    assert_eq!(said.lines().filter(|line| line.ends_with("ok")).count(), 4, "{said}");

    // Another sampler than diffusers had is found out.
    let copy = tempfile::tempdir().unwrap();
    let status = Command::new("cp").args(["-r", folders[2]]).arg(copy.path()).status().unwrap();
    assert!(status.success());
    let config = copy.path().join("dit/scheduler/scheduler_config.json");
    let changed = std::fs::read_to_string(&config).unwrap().replace("\"beta_end\": 0.02", "\"beta_end\": 0.03");
    std::fs::write(&config, changed).unwrap();
    let spoiled = copy.path().join("dit");
    let output = Command::new(env!("CARGO_BIN_EXE_evocache-worker")).arg("check").arg(&spoiled).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: dit off by more than"));
}

#[test]
fn blocks_are_timed_for_every_component_of_every_kind() {
    let said = worker(&["blocks", "--model", "dit", "--repeats", "1", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    let names: Vec<&str> = json["rows"].as_array().unwrap().iter().map(|r| r["component"].as_str().unwrap()).collect();
    assert_eq!(names, ["attn1", "ff"]);
    assert!(json["rows"][0]["ms"][0].as_f64().unwrap() > 0.0);
}
