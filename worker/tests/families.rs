//! The subcommands of the binary with a pipeline of every family, and the errors for damaged ones; cases that all
//! families share are in `tests/bad_input.rs`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use common::copy_model;
use evocache_proto::domain::{Calibration, Decision, MeasurementPlan, Prompt, Sampling, Schedule};
use evocache_worker::cancel::CancelToken;
use evocache_worker::evaluator::api::{Evaluate, Task};
use evocache_worker::evaluator::device::{DeviceChoice, Precision};
use evocache_worker::evaluator::pipeline::Pipeline;
use evocache_worker::evaluator::{DiffusionEvaluator, EvaluatorOptions};
use evocache_worker::files::ModelError;
use evocache_worker::picture::Picture;
use serde_json::Value;
use tempfile::TempDir;

const FAMILIES: [&str; 7] = ["pixart1024", "sigma", "flux", "schnell", "dit", "sd3", "sd35"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn worker(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evocache-worker"));
    command.env_remove("HF_HOME").env_remove("HF_HUB_CACHE").args(arguments).output().unwrap()
}

fn said(arguments: &[&str]) -> String {
    let output = worker(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Golden tensors of a family, and the settings that they were made with.
fn golden(folder: &Path) -> (std::collections::HashMap<String, Tensor>, Value) {
    let bytes = fs::read(folder.join("golden.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let about = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap();
    (candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap(), about)
}

#[test]
fn generate_and_inspect_know_every_family() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("picture.png");
    for name in FAMILIES {
        let folder = fixture(name);
        let (tensors, about) = golden(&folder);
        let number = |field: &str| about[field].to_string();
        let (height, width) = (number("height"), number("width"));
        let model = folder.to_str().unwrap();
        let sized = ["--model", model, "--height", &height, "--width", &width];
        let (steps, seed, guidance) = (number("steps"), about["seeds"][1].to_string(), number("guidance"));
        let mut arguments = vec!["generate", "--out", path.to_str().unwrap(), "--steps", &steps, "--seed", &seed];
        arguments.extend(["--guidance", &guidance, "--prompt", about["prompts"][1].as_str().unwrap()]);
        arguments.extend(["--negative-prompt", about["negative"].as_str().unwrap()]);
        arguments.extend(sized);
        said(&arguments);
        // The picture that diffusers draws for this prompt and seed, except for rounding to 8 bits.
        let wanted = Picture::from_batch(&tensors["pictures"], 1).unwrap();
        let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(&path).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgb).unwrap();
        assert_eq!(rgb.len(), wanted.rgb.len(), "{name}");
        assert!(rgb.iter().zip(&wanted.rgb).all(|(a, b)| a.abs_diff(*b) <= 1), "{name}");

        let json: Value = serde_json::from_str(&said(&[&["inspect", "--json"][..], &sized[..]].concat())).unwrap();
        assert_eq!(json["slots"].as_u64().unwrap() as usize, about["slots"].as_array().unwrap().len(), "{name}");
        let components = json["components"].as_array().unwrap();
        assert!(
            components.iter().all(|c| c["macs"].as_u64() > Some(0) && c["cache_bytes"].as_u64() > Some(0)),
            "{name}"
        );
        assert_eq!(json["guidance"].as_bool().unwrap(), !["flux", "schnell"].contains(&name), "{name}");
    }
}

#[test]
fn every_family_is_evaluated() {
    for name in FAMILIES {
        let folder = fixture(name);
        let (_, about) = golden(&folder);
        let mut evaluator = DiffusionEvaluator::open(&EvaluatorOptions {
            model: folder,
            model_name: None,
            worker_name: "test".into(),
            labels: Default::default(),
            memory_bytes: 0,
            device: DeviceChoice::Cpu,
            precision: Precision::F32,
            clip: None,
            metrics: Vec::new(),
            vae_tiling: false,
            texts: Default::default(),
            samplers: Default::default(),
            memory: None,
        })
        .unwrap();
        let declaration = evaluator.declaration();
        assert_eq!(declaration.check(), Ok(()), "{name}");
        let side = |field: &str| Some(u32::try_from(about[field].as_u64().unwrap()).unwrap());
        let prompt = |i: usize| Prompt { text: about["prompts"][i].as_str().unwrap().into(), seed: i as u64 };
        let calibration = Calibration {
            prompts: vec![prompt(0), prompt(1)],
            sampling: Sampling {
                steps: vec![6],
                guidance_scale: about["guidance"].as_f64().unwrap(),
                height: side("height"),
                width: side("width"),
                negative_prompt: String::new(),
                grids: vec![],
            },
            plan: MeasurementPlan { batch: 2, warmup: 0, repeats: 1, thumbnails: 1 },
        };
        let cancel = CancelToken::new();
        evaluator.prepare(&calibration, &cancel).unwrap();
        let layout = evaluator.pipeline().layout().clone();
        let fora =
            Schedule::from_fn(layout, 6, |step, _| if step % 3 == 0 { Decision::Compute } else { Decision::Reuse })
                .unwrap();
        let measured = evaluator.evaluate(Task { profile: true, ..Task::whole(&fora) }, &cancel).unwrap();
        assert_eq!(measured.check(&["psnr"], 2, 1), Ok(()), "{name}");
        assert!(measured.macs < measured.baseline_macs && measured.peak_cache_bytes > 0, "{name}");
        assert!(measured.profile.is_some(), "{name}");
    }
}

#[test]
fn what_does_not_fit_into_memory_is_refused_before_it_runs() {
    let open = |memory| {
        DiffusionEvaluator::open(&EvaluatorOptions {
            model: fixture("flux"),
            model_name: None,
            worker_name: "test".into(),
            labels: Default::default(),
            memory_bytes: 0,
            device: DeviceChoice::Cpu,
            precision: Precision::F32,
            clip: None,
            metrics: Vec::new(),
            vae_tiling: true,
            texts: Default::default(),
            samplers: Default::default(),
            memory: Some(memory),
        })
        .unwrap()
    };
    let calibration = Calibration {
        prompts: vec![Prompt { text: "a red cat".into(), seed: 1 }],
        sampling: Sampling {
            steps: vec![4],
            guidance_scale: 3.5,
            height: Some(64),
            width: Some(64),
            negative_prompt: String::new(),
            grids: vec![],
        },
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 0 },
    };
    let cancel = CancelToken::new();
    let error = open(1_000_000).prepare(&calibration, &cancel).unwrap_err();
    assert!(error.to_string().starts_with("the uncached run needs about "), "{error}");
    assert!(error.to_string().ends_with("bytes at its peak, this worker may use 1000000"), "{error}");
    assert!(!error.is_retryable() && error.hint().unwrap().contains("--memory"));

    // Memory for the uncached run plus half of the most that a schedule can store.
    let pipeline = Pipeline::load(&fixture("flux"), Device::Cpu).unwrap().with_tiles();
    let (size, guidance) = (pipeline.latent_size(Some(64), Some(64)).unwrap(), pipeline.guidance(3.5));
    let (memory, cost) = (pipeline.memory(size, guidance), pipeline.cost(size, guidance));
    let schedule = |all: bool| {
        let keep = move |step: u32, slot: usize| all && step > 0 || step == 2 && slot == 0;
        let decide = |step, slot| if keep(step, slot) { Decision::Reuse } else { Decision::Compute };
        Schedule::from_fn(pipeline.layout().clone(), 4, decide).unwrap()
    };
    let (little, much) = (schedule(false), schedule(true));
    let limit = (memory.peak(&little, &cost, 1) + memory.peak(&much, &cost, 1)) / 2;
    let mut evaluator = open(limit);
    evaluator.prepare(&calibration, &cancel).unwrap();
    let error = evaluator.evaluate(Task::whole(&much), &cancel).unwrap_err();
    assert!(error.to_string().starts_with("the schedule needs about ") && !error.is_retryable(), "{error}");
    evaluator.evaluate(Task::whole(&little), &cancel).unwrap();
}

/// A copy of a family's pipeline to damage.
fn copy(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy_model(&fixture(name), &model);
    (folder, model)
}

fn edit(path: PathBuf, from: &str, to: &str) {
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn load(model: &Path) -> Result<(), ModelError> {
    Pipeline::load(model, Device::Cpu)?.encode(&["1"]).map(drop)
}

/// A family, a way to damage its folder, and what the error must say.
type Case = (&'static str, fn(&Path), &'static [&'static str]);

const CASES: &[Case] = &[
    (
        "flux",
        |m| fs::remove_file(m.join("text_encoder_2/model.safetensors")).unwrap(),
        &["text_encoder_2/model.safetensors", "is missing"],
    ),
    (
        "flux",
        |m| edit(m.join("model_index.json"), "FlowMatchEulerDiscreteScheduler", "DDIMScheduler"),
        &["model_index.json", "'scheduler'", "'DDIMScheduler'", "FlowMatchEulerDiscreteScheduler"],
    ),
    (
        "flux",
        |m| edit(m.join("transformer/config.json"), "    4,", "    5,"),
        &["transformer/config.json", "'axes_dims_rope'", "attention_head_dim = 16", "[5, 6, 6]"],
    ),
    (
        "schnell",
        |m| edit(m.join("transformer/config.json"), "\"guidance_embeds\": false", "\"guidance_embeds\": true"),
        &["no tensor 'time_text_embed.guidance_embedder.linear_1.weight'"],
    ),
    (
        "flux",
        |m| edit(m.join("transformer/config.json"), "\"num_single_layers\": 2", "\"num_single_layers\": 5000"),
        &["2 double and 5000 single blocks", "at most 4096"],
    ),
    (
        "flux",
        |m| edit(m.join("transformer/config.json"), "\"pooled_projection_dim\": 12", "\"pooled_projection_dim\": 768"),
        &["'time_text_embed.text_embedder.linear_1.weight'", "[32, 768]", "[32, 12]"],
    ),
    (
        "flux",
        |m| edit(m.join("vae/config.json"), "\"latent_channels\": 16", "\"latent_channels\": 4"),
        &["vae/diffusion_pytorch_model.safetensors", "'decoder.conv_in.weight'", "[16, 4, 3, 3]"],
    ),
    ("flux", |m| fs::remove_file(m.join("tokenizer/merges.txt")).unwrap(), &["tokenizer/tokenizer.json", "is missing"]),
    ("flux", |m| fs::remove_file(m.join("tokenizer/vocab.json")).unwrap(), &["cannot read", "tokenizer/vocab.json"]),
    (
        "flux",
        |m| {
            edit(
                m.join("tokenizer/tokenizer_config.json"),
                "\"bos_token\": \"<|startoftext|>\"",
                "\"bos_token\": \"<s>\"",
            );
        },
        // A token that is not in the vocabulary is added to it, as in transformers.
        &["the tokenizer gives token 523, but CLIP knows 523"],
    ),
    (
        "sd35",
        |m| edit(m.join("transformer/config.json"), "    0\n", "    1\n"),
        &["transformer/config.json", "'dual_attention_layers'", "[1.0]"],
    ),
    (
        "sd35",
        |m| edit(m.join("transformer/config.json"), "\"qk_norm\": \"rms_norm\"", "\"qk_norm\": \"layer_norm\""),
        &["transformer/config.json", "'qk_norm'", "'layer_norm'", "rms_norm"],
    ),
    (
        "sd3",
        |m| edit(m.join("transformer/config.json"), "\"pos_embed_max_size\": 12", "\"pos_embed_max_size\": 13"),
        &["'pos_embed.pos_embed'", "[1, 169, 16]", "[1, 144, 16]"],
    ),
    (
        "sd3",
        |m| edit(m.join("model_index.json"), "CLIPTextModelWithProjection", "CLIPTextModel"),
        &["model_index.json", "'CLIPTextModel'", "CLIPTextModelWithProjection"],
    ),
    (
        "dit",
        |m| edit(m.join("model_index.json"), "\"207\"", "\"1000\""),
        &["model_index.json", "'id2label.1000'", "a class below 1000"],
    ),
    (
        "dit",
        |m| edit(m.join("scheduler/scheduler_config.json"), "\"thresholding\": false", "\"thresholding\": true"),
        &["scheduler_config.json", "'thresholding'"],
    ),
    (
        "dit",
        |m| edit(m.join("transformer/config.json"), "\"out_channels\": 8", "\"out_channels\": 6"),
        &["transformer/config.json", "'out_channels'", "a learned variance", "6"],
    ),
];

#[test]
fn every_damage_is_an_error_that_names_file_and_field() {
    for (name, spoil, wanted) in CASES {
        let (_folder, model) = copy(name);
        load(&model).unwrap_or_else(|e| panic!("{name}: the copy is sound, but {e}"));
        spoil(&model);
        let text = load(&model).expect_err(&format!("{name}: {wanted:?}")).to_string();
        for part in *wanted {
            assert!(text.contains(part), "{name}: '{text}' does not say '{part}'");
        }
        assert!(!text.ends_with('.') && text.starts_with(|c: char| !c.is_uppercase()), "{name}: {text}");
    }
}

#[test]
fn a_prompt_or_size_that_a_model_cannot_take_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("picture.png");
    let fails = |name: &str, more: &[&str], wanted: &str| {
        let folder = fixture(name);
        let fixed = ["generate", "--model", folder.to_str().unwrap(), "--out", path.to_str().unwrap(), "--steps", "2"];
        let output = worker(&[&fixed[..], more].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.starts_with("error: ") && text.contains(wanted), "{name}: {text}");
    };
    fails(
        "dit",
        &["--prompt", "a dragon"],
        "'a dragon' is not a class of the model: use a number below 1000 or a name such",
    );
    fails("dit", &["--prompt", "1000"], "'1000' is not a class of the model");
    fails("flux", &["--prompt", "a cat", "--height", "30", "--width", "16"], "height and width must be multiples of 4");
    fails("sd3", &["--prompt", "a cat", "--height", "64", "--width", "16"], "height and width must be at most 48");
}

#[test]
fn a_model_is_found_by_its_name_on_the_hub_or_the_error_shows_the_download_command() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("models--someone--tiny-dit");
    copy_model(&fixture("dit"), &folder.join("snapshots/0123abcd"));
    fs::create_dir(folder.join("refs")).unwrap();
    fs::write(folder.join("refs/main"), "0123abcd").unwrap();
    let at = cache.path().to_str().unwrap();
    let text = said(&["inspect", "--model", "someone/tiny-dit", "--hub-cache", at]);
    assert!(text.contains("tiny-dit (DiTPipeline)") && text.contains("block*2[attn1,ff] = 4 slots"), "{text}");
    let output = worker(&["inspect", "--model", "someone/else", "--hub-cache", at]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("error: 'someone/else' is not a folder, and not in the hub's cache"), "{text}");
    assert!(
        text.contains("hint: download it with `hf download someone/else --include model_index.json \"*/*\"`"),
        "{text}"
    );
}

#[test]
fn bf16_weights_are_found_and_read() {
    let (_folder, model) = copy("dit");
    let file = model.join("transformer/diffusion_pytorch_model.safetensors");
    let weights = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let weights: std::collections::HashMap<String, Tensor> =
        weights.into_iter().map(|(name, weight)| (name, weight.to_dtype(candle_core::DType::BF16).unwrap())).collect();
    fs::remove_file(file).unwrap();
    let variant = model.join("transformer/diffusion_pytorch_model.bf16.safetensors");
    candle_core::safetensors::save(&weights, &variant).unwrap();
    load(&model).unwrap();
    // The same weights as a sharded set with an index.
    fs::rename(&variant, model.join("transformer/part-1.safetensors")).unwrap();
    let index = model.join("transformer/diffusion_pytorch_model.safetensors.index.bf16.json");
    fs::write(index, r#"{"weight_map": {"proj_out_1.bias": "part-1.safetensors"}}"#).unwrap();
    load(&model).unwrap();
}
