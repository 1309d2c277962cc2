//! The subcommands of the binary with the bundled model.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::Command;

use candle_core::{Device, Tensor};
use common::{Golden, model_dir};
use evocache_worker::metrics::clip_score::ClipScore;
use evocache_worker::picture::Picture;

fn worker(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_evocache-worker")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the binary, which must fail, and returns its stderr.
fn refusal(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_evocache-worker")).args(arguments).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// A PNG file as `[3, h, w]` in [0, 1].
fn read_png(path: &Path) -> Tensor {
    Picture::read(path).unwrap().tensor().unwrap().get(0).unwrap()
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
    // diffusers strips prompts and converts them to lower case, so this is the same prompt.
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

/// The largest difference between a PNG file and a golden picture, in 255ths.
fn off(path: &Path, wanted: &Tensor) -> f64 {
    let wanted = wanted.permute((2, 0, 1)).unwrap().to_dtype(candle_core::DType::F32).unwrap();
    let found = (read_png(path) * 255.0).unwrap();
    assert_eq!(found.dims(), wanted.dims());
    common::values(&(found - wanted).unwrap()).into_iter().fold(0.0, |worst, x| f64::from(x.abs()).max(worst))
}

#[test]
fn generate_takes_order_and_grid_as_diffusers_does() {
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().join("picture.png"), model_dir());
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/grid.safetensors");
    let golden = candle_core::safetensors::load(golden, &Device::Cpu).unwrap();
    let fixed = ["generate", "--model", model.to_str().unwrap(), "--out", out.to_str().unwrap(), "--guidance", "3"];
    let with = |more: &[&'static str]| {
        [&fixed[..], &["--prompt", "an owl on a pink background", "--seed", "5"], more].concat()
    };
    for order in ["1", "2"] {
        let said = worker(&with(&["--solver-order", order, "--timesteps", "999,732,478,243,50"]));
        assert!(said.contains("5 steps, 180 slots computed"), "{said}");
        assert!(off(&out, &golden[&format!("order_{order}")]) <= 1.0, "order {order}");
    }
    for (more, wanted) in [
        (&["--solver-order", "4"][..], "the solver's order must be 1 to 3, got 4"),
        (&["--timesteps", "999,400", "--steps", "3"], "2 timesteps were given for 3 steps"),
        (&["--timesteps", "400,999"], "must decrease, noisiest first"),
        (&["--timesteps", "1000"], "numbers below 1000"),
        (&["--timesteps", "9.5"], "invalid digit"),
        (&["--sigmas", "1,0.5"], "DPMSolverMultistepScheduler takes no sigmas: give it timesteps"),
        (&["--sigmas", "1", "--timesteps", "5"], "cannot be used with"),
    ] {
        let said = refusal(&with(more));
        assert!(said.contains(wanted), "{more:?}: {said}");
    }
    for (name, more, wanted) in [
        ("dit", ["--solver-order", "1"], "DDIMScheduler takes no solver order"),
        ("dit", ["--timesteps", "5"], "DDIMScheduler takes no timesteps"),
        ("flux", ["--timesteps", "5"], "FlowMatchEulerDiscreteScheduler takes no timesteps"),
        ("flux", ["--sigmas", "1.5"], "above 0 and at most 1"),
    ] {
        let model = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        let fixed = ["generate", "--model", &model, "--prompt", "1", "--out", out.to_str().unwrap()];
        let said = refusal(&[&fixed[..], &more[..]].concat());
        assert!(said.contains(wanted), "{name}: {said}");
    }
}

#[test]
fn generate_draws_with_the_defaults_of_pixarts_pipelines_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("model"), folder.path().join("picture.png"));
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/published/PixArt-XL-2-512x512");
    common::copy_model(&published, &model);
    let config = model.join("transformer/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"sample_size\": 64", "\"sample_size\": 32")).unwrap();
    let bytes = std::fs::read(published.join("defaults.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let about: serde_json::Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap();
    let golden = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    let (at, path) = (model.to_str().unwrap(), out.to_str().unwrap());
    let fixed = ["generate", "--model", at, "--out", path, "--prompt", about["prompt"].as_str().unwrap()];
    let sized = ["--steps", "3", "--seed", "5", "--height", "40", "--width", "28"];
    let with = |more: &[&'static str]| [&fixed[..], &sized, more].concat();
    worker(&with(&["--clean-caption", "--resolution-binning"]));
    assert!(off(&out, &golden["picture"]) <= 1.0);
    // Either alone gives another picture.
    for one in ["--clean-caption", "--resolution-binning"] {
        worker(&with(&[one]));
        assert!(off(&out, &golden["picture"]) > 1.0, "{one}");
    }
    let emoji = model_dir();
    let fixed = ["generate", "--model", emoji.to_str().unwrap(), "--out", path, "--prompt", "an owl"];
    let said = refusal(&[&fixed[..], &["--resolution-binning"]].concat());
    assert!(said.contains("no table of trained sizes for a native size of 16 latent rows"), "{said}");
    let said = refusal(&[&fixed[..], &["--clean-caption", "--negative-prompt", "<b>"]].concat());
    assert!(said.contains("prompt '<b>' cannot be cleaned as diffusers does: '<' may begin HTML"), "{said}");
    let flux = format!("{}/tests/fixtures/flux", env!("CARGO_MANIFEST_DIR"));
    for (more, wanted) in [
        ("--clean-caption", "a FluxPipeline does not clean captions"),
        ("--resolution-binning", "--resolution-binning is for PixArt models, this is a FluxPipeline"),
        ("--max-tokens=513", "cannot use 513 text tokens: a FluxPipeline takes 1 to 512"),
    ] {
        let said = refusal(&["generate", "--model", &flux, "--out", path, "--prompt", "an owl", more]);
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn generate_refuses_invalid_arguments_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (model, there) = (model_dir(), folder.path().to_str().unwrap().to_owned());
    let (missing, out) = (format!("{there}/missing/picture.png"), format!("{there}/picture.png"));
    let fixed = ["generate", "--model", model.to_str().unwrap(), "--prompt", "an owl"];
    for (more, wanted) in [
        (&["--out", &out, "--memory", "1M"][..], "the run needs about "),
        (&["--out", &out, "--guidance", "nan"], "'nan' is not between 0 and 100"),
        (&["--out", &missing, "--steps", "1000"], "missing' is not a folder"),
        (&["--out", &there, "--steps", "1000"], "it is a folder"),
    ] {
        let said = refusal(&[&fixed[..], more].concat());
        assert!(said.contains(wanted), "{more:?}: {said}");
    }
    assert!(!Path::new(&out).exists());
    // A byte-order mark in a prompts file is not part of the first prompt.
    let prompts = format!("{there}/prompts.txt");
    let draw = |text: &str, to: &str| {
        std::fs::write(&prompts, text).unwrap();
        let to = format!("{there}/{to}");
        let many = ["--prompts-file", &prompts, "--steps", "2", "--out", &to];
        worker(&[&fixed[..3], &many[..]].concat());
        common::values(&read_png(&Path::new(&to).join("00000.png")))
    };
    assert_eq!(draw("an owl\n", "plain"), draw("\u{feff}an owl\n", "marked"));
    // The same for a schedule.
    let schedule = std::fs::read_to_string(model_dir().join("golden/cached_fora_3.json")).unwrap();
    let marked = format!("{there}/marked.json");
    std::fs::write(&marked, format!("\u{feff}{schedule}")).unwrap();
    worker(&[&fixed[..], &["--schedule", &marked, "--out", &out]].concat());
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
    // 64 tokens of width 128 in two passes: 4 projections, and scores and values over 64 tokens.
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

    // Each cached run is between two uncached runs. A schedule that computes everything skips none of their parts.
    let times = |schedule: &serde_json::Value, name: &str| -> Vec<f64> {
        schedule["denoising"][name].as_array().unwrap().iter().map(|ms| ms.as_f64().unwrap()).collect()
    };
    for (i, schedule) in schedules.iter().enumerate() {
        let (cached, uncached, parts) =
            (times(schedule, "ms"), times(schedule, "uncached_ms"), times(schedule, "parts_ms"));
        assert_eq!((cached.len(), uncached.len(), parts.len()), (1, 2, 1));
        let whole = (uncached[0] + uncached[1]) / 2.0;
        assert!(
            parts[0] > 0.0 && if i == 9 { (parts[0] - whole).abs() < 1e-9 } else { parts[0] < whole },
            "{schedule}"
        );
    }
    assert!(worker(&arguments).contains("caching adds "));
}

#[test]
fn check_compares_every_family_with_diffusers() {
    let folders = ["pixart1024", "flux", "dit", "sd35"]
        .map(|name| format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR")));
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    for precision in ["f32", "bf16"] {
        let said = worker(&[&["check", "--precision", precision], &folders[..]].concat());
        assert_eq!(said.lines().filter(|line| line.ends_with("ok")).count(), 4, "{said}");
    }

    // A sampler that differs from that of diffusers is detected.
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

/// Writes pictures of the given sizes, each a pattern with `shift` added to every value.
fn write_pictures(folder: &Path, sizes: &[(usize, usize)], shift: usize) {
    std::fs::create_dir_all(folder).unwrap();
    for (i, &(width, height)) in sizes.iter().enumerate() {
        let rgb = (0..3 * width * height).map(|j| ((j * (i + 3)) % 200 + shift) as u8).collect();
        std::fs::write(folder.join(format!("{i}.png")), Picture { width, height, rgb }.png().unwrap()).unwrap();
    }
}

#[test]
fn generate_draws_a_folder_that_score_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, prompts) = (model_dir(), path("prompts.txt"));
    let model = model.to_str().unwrap();
    std::fs::write(&prompts, "a red apple\n\nan owl\na pizza\n").unwrap();
    let common = ["generate", "--model", model, "--steps", "4", "--guidance", "3"];
    let (uncached, alone) = (path("uncached"), path("alone.png"));
    let many = ["--prompts-file", &prompts, "--seed", "7", "--batch", "2", "--out", &uncached];
    let said = worker(&[&common[..], &many].concat());
    assert!(said.contains("3 pictures: 4 steps, 144 slots computed"), "{said}");
    worker(&[&common[..], &["--prompt", "an owl", "--seed", "8", "--out", &alone]].concat());
    // A batch adds in another order than a single picture.
    let (one, same) = (read_png(&folder.path().join("uncached/00001.png")), read_png(Path::new(&alone)));
    assert!(common::mean_difference(&one, &same) < 0.5 / 255.0);
    let clip = format!("clip_score={}", model_dir().join("clip").display());
    let score = ["score", &uncached, "--reference", &uncached, "--prompts-file", &prompts];
    let json = worker(&[&score[..], &["--metric", &clip, "--metric", "psnr", "--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["pictures"], serde_json::json!(["00000.png", "00001.png", "00002.png"]));
    assert!(json["metrics"]["clip_score"]["mean"].as_f64().unwrap() > 0.5, "{json}");
    let said = refusal(&[&common[..], &["--out", &alone]].concat());
    assert!(said.contains("--prompt"), "{said}");
}

#[test]
fn score_measures_folders_of_pictures_of_different_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cached, uncached) = (path("cached"), path("uncached"));
    let sizes = [(64, 64), (64, 64), (40, 24), (64, 64)];
    write_pictures(Path::new(&uncached), &sizes, 0);
    write_pictures(Path::new(&cached), &sizes, 5);
    let both = ["score", &cached, "--reference", &uncached, "--metric", "psnr", "--metric", "ssim"];
    let json: serde_json::Value = serde_json::from_str(&worker(&[&both[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["pictures"], serde_json::json!(["0.png", "1.png", "2.png", "3.png"]));
    for value in json["metrics"]["psnr"]["values"].as_array().unwrap() {
        let wanted = 20.0 * (255.0f64 / 5.0).log10();
        assert!((value.as_f64().unwrap() - wanted).abs() < 1e-4, "{value} is not {wanted}");
    }
    assert!(json["metrics"]["ssim"]["mean"].as_f64().unwrap() < 1.0);
    assert_eq!(json["metrics"]["psnr"]["unit"], "dB");
    let table = worker(&["score", &cached, "--reference", &cached, "--metric", "ssim", "--batch", "1"]);
    let last: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(last, ["mean", "1.000000"], "{table}");

    // Against prompts: the score equals that of the library.
    let (prompts, clip) = (path("prompts.txt"), format!("clip_score={}", model_dir().join("clip").display()));
    std::fs::write(&prompts, "a red apple\nan owl\na pizza\na cat\n").unwrap();
    write_pictures(Path::new(&path("square")), &[(64, 64); 4], 9);
    let by_prompts = ["score", &path("square"), "--prompts-file", &prompts, "--metric", &clip, "--json"];
    let json: serde_json::Value = serde_json::from_str(&worker(&by_prompts)).unwrap();
    let score = ClipScore::load(&model_dir().join("clip"), &Device::Cpu).unwrap();
    let picture = Picture::read(&Path::new(&path("square")).join("1.png")).unwrap().tensor().unwrap();
    let cosine = (score.embed_texts(&["an owl"]).unwrap() * score.embed_pictures(&picture).unwrap()).unwrap();
    let wanted = f64::from(cosine.sum_all().unwrap().to_scalar::<f32>().unwrap());
    let found = json["metrics"]["clip_score"]["values"][1].as_f64().unwrap();
    assert!((found - wanted).abs() < 1e-5, "{found} is not {wanted}");

    // For metrics of whole sets, the other folder may have any pictures.
    let cmmd = format!("cmmd={}", model_dir().join("clip").display());
    let sets = ["score", &cached, "--reference", &path("square"), "--metric", &cmmd, "--json"];
    let json: serde_json::Value = serde_json::from_str(&worker(&sets)).unwrap();
    assert!(json["metrics"]["cmmd"]["value"].as_f64().unwrap() > 0.01, "{json}");
    let table = worker(&["score", &cached, "--reference", &cached, "--metric", "psnr", "--metric", &cmmd]);
    let last: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
    assert!(last == ["cmmd", "0.000000"] && table.contains("100.000000"), "{table}");

    // Missing or mismatched inputs give an error with a hint.
    let said = refusal(&["score", &cached, "--metric", "ssim"]);
    assert!(said.contains("ssim compares pictures with reference") && said.contains("--reference DIR"), "{said}");
    let said = refusal(&["score", &cached, "--metric", &clip]);
    assert!(said.contains("against their prompts") && said.contains("--prompts-file"), "{said}");
    std::fs::write(&prompts, "one\n").unwrap();
    let said = refusal(&["score", &cached, "--metric", &clip, "--prompts-file", &prompts]);
    assert!(said.contains("has 1 prompts for 4 pictures"), "{said}");
    let said = refusal(&["score", &path("square"), "--reference", &cached, "--metric", "psnr"]);
    assert!(said.contains("2.png' has 24x40 pixels") && said.contains("has 64x64"), "{said}");
    let said = refusal(&["score", folder.path().to_str().unwrap(), "--metric", "psnr"]);
    assert!(said.contains("has no PNG pictures"), "{said}");
    let said = refusal(&["score", &cached, "--metric", "beauty"]);
    assert!(said.contains("'beauty' is not a metric; use one of psnr"), "{said}");
}
