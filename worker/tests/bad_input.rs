//! Damaged and unsupported model folders and schedules: each error names the file and the field or tensor.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::Device;
use common::{copy_model, model_dir};
use evocache_worker::evaluator::pipeline::Pipeline;
use evocache_worker::files::ModelError;
use tempfile::TempDir;

/// A copy of the bundled model to damage.
fn copy() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy_model(&model_dir(), &model);
    (folder, model)
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Loads everything that a run loads.
fn load(model: &Path) -> Result<(), ModelError> {
    let pipeline = Pipeline::load(model, Device::Cpu)?;
    pipeline.encode(&["a pizza on a white background"])?;
    evocache_worker::metrics::clip_score::ClipScore::load(&model.join("clip"), &Device::Cpu)?;
    Ok(())
}

/// A name, a way to damage a model folder, and what the error must say.
type Case = (&'static str, fn(&Path), &'static [&'static str]);

const WEIGHTS: &str = "transformer/diffusion_pytorch_model.safetensors";

const CASES: &[Case] = &[
    ("no index", |m| fs::remove_file(m.join("model_index.json")).unwrap(), &["model_index.json"]),
    (
        "another pipeline",
        |m| edit(&m.join("model_index.json"), "PixArtAlphaPipeline", "SanaPipeline"),
        &[
            "model_index.json",
            "'_class_name'",
            "'SanaPipeline'",
            "PixArtAlphaPipeline, PixArtSigmaPipeline, FluxPipeline",
        ],
    ),
    (
        "another transformer",
        |m| edit(&m.join("model_index.json"), "PixArtTransformer2DModel", "DiTTransformer2DModel"),
        &["model_index.json", "'transformer'", "'DiTTransformer2DModel'", "PixArtTransformer2DModel"],
    ),
    (
        "another sampler",
        |m| edit(&m.join("model_index.json"), "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"),
        &["'scheduler'", "'EulerDiscreteScheduler'", "DPMSolverMultistepScheduler"],
    ),
    (
        "a config that is not JSON",
        |m| fs::write(m.join("transformer/config.json"), "{\"num_layers\": 12,").unwrap(),
        &["transformer/config.json", "cannot be parsed"],
    ),
    (
        "a field of the wrong type",
        |m| edit(&m.join("transformer/config.json"), "\"num_layers\": 12", "\"num_layers\": \"twelve\""),
        &["transformer/config.json", "'num_layers'", "\"twelve\""],
    ),
    (
        "a sampler option that is not implemented",
        |m| edit(&m.join("scheduler/scheduler_config.json"), "\"thresholding\": false", "\"thresholding\": true"),
        &["scheduler_config.json", "'thresholding'", "true"],
    ),
    (
        "an unknown solver",
        |m| edit(&m.join("scheduler/scheduler_config.json"), "\"dpmsolver++\"", "\"sde-dpmsolver++\""),
        &["scheduler_config.json", "'algorithm_type'", "'sde-dpmsolver++'", "dpmsolver++"],
    ),
    ("no weights", |m| fs::remove_file(m.join(WEIGHTS)).unwrap(), &[WEIGHTS, "is missing"]),
    (
        "truncated weights",
        |m| {
            let bytes = fs::read(m.join(WEIGHTS)).unwrap();
            fs::write(m.join(WEIGHTS), &bytes[..bytes.len() - 1000]).unwrap();
        },
        &[WEIGHTS, "damaged", "header implies"],
    ),
    (
        "truncated text encoder",
        |m| {
            let path = m.join("text_encoder/model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..100]).unwrap();
        },
        &["text_encoder/model.safetensors", "damaged", "the file has 100"],
    ),
    ("empty weights", |m| fs::write(m.join(WEIGHTS), b"").unwrap(), &[WEIGHTS, "damaged", "0 bytes"]),
    (
        "weights that are something else",
        |m| fs::write(m.join(WEIGHTS), b"<!DOCTYPE html><html>404</html>").unwrap(),
        &[WEIGHTS, "damaged", "header claims"],
    ),
    (
        "more layers than weights",
        |m| edit(&m.join("transformer/config.json"), "\"num_layers\": 12", "\"num_layers\": 13"),
        &[WEIGHTS, "no tensor 'transformer_blocks.12.attn1.to_q.weight'"],
    ),
    (
        "a config of another size",
        |m| edit(&m.join("transformer/config.json"), "\"caption_channels\": 128", "\"caption_channels\": 4096"),
        &[WEIGHTS, "'caption_projection.linear_1.weight'", "[128, 4096]", "[128, 128]"],
    ),
    (
        "a VAE with other latents",
        |m| edit(&m.join("vae/config.json"), "\"latent_channels\": 4", "\"latent_channels\": 16"),
        &["vae/diffusion_pytorch_model.safetensors", "'post_quant_conv.weight'", "[16, 16, 1, 1]", "[4, 4, 1, 1]"],
    ),
    (
        "a weight that is NaN",
        |m| {
            let mut bytes = fs::read(m.join(WEIGHTS)).unwrap();
            let end = bytes.len();
            bytes[end - 2..].copy_from_slice(&0x7e00u16.to_le_bytes());
            fs::write(m.join(WEIGHTS), bytes).unwrap();
        },
        &[WEIGHTS, "tensor '", "not finite"],
    ),
    (
        "no tokenizer",
        |m| {
            fs::remove_file(m.join("tokenizer/tokenizer.json")).unwrap();
            fs::remove_file(m.join("tokenizer/spiece.model")).unwrap();
        },
        &["tokenizer/tokenizer.json", "is missing"],
    ),
    (
        "a spiece.model that is something else",
        |m| {
            fs::remove_file(m.join("tokenizer/tokenizer.json")).unwrap();
            fs::write(m.join("tokenizer/spiece.model"), b"<!DOCTYPE html><html>404</html>").unwrap();
        },
        &["tokenizer/spiece.model", "not a SentencePiece model"],
    ),
    (
        "a text encoder with another activation",
        |m| edit(&m.join("text_encoder/config.json"), "\"gated-gelu\"", "\"gated-mish\""),
        &["text_encoder/config.json", "'feed_forward_proj'", "'gated-mish'"],
    ),
    (
        "a smaller vocabulary than the tokenizer's",
        |m| edit(&m.join("text_encoder/config.json"), "\"vocab_size\": 455", "\"vocab_size\": 12"),
        &["text_encoder/model.safetensors", "'shared.weight'", "[12, 128]", "[455, 128]"],
    ),
    (
        "a CLIP for other pictures",
        |m| edit(&m.join("clip/preprocessor_config.json"), "\"height\": 64", "\"height\": 224"),
        &["clip/preprocessor_config.json", "224", "64"],
    ),
];

#[test]
fn every_damage_is_an_error_that_names_file_and_field() {
    for (what, spoil, wanted) in CASES {
        let (_folder, model) = copy();
        load(&model).unwrap_or_else(|e| panic!("{what}: the copy is sound, but {e}"));
        spoil(&model);
        let error = load(&model).expect_err(what);
        let text = error.to_string();
        for part in *wanted {
            assert!(text.contains(part), "{what}: '{text}' does not say '{part}'");
        }
        assert!(!text.ends_with('.') && text.starts_with(|c: char| !c.is_uppercase()), "{what}: {text}");
    }
}

#[test]
fn sharded_and_fp16_weights_are_found() {
    let (_folder, model) = copy();
    let transformer = model.join("transformer");
    // One shard under its index.
    fs::rename(model.join(WEIGHTS), transformer.join("part-1.safetensors")).unwrap();
    let index = transformer.join("diffusion_pytorch_model.safetensors.index.json");
    fs::write(&index, r#"{"metadata": {}, "weight_map": {"proj_out.bias": "part-1.safetensors"}}"#).unwrap();
    load(&model).unwrap();
    fs::write(&index, r#"{"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}"#).unwrap();
    let error = load(&model).unwrap_err();
    assert!(error.to_string().contains("part-2.safetensors' is missing"), "{error}");
    fs::write(&index, r#"{"weight_map": {"a": "../../secret.safetensors"}}"#).unwrap();
    assert!(load(&model).unwrap_err().to_string().contains("file names in the same folder"));
    fs::remove_file(index).unwrap();
    // A variant.
    let variant = transformer.join("diffusion_pytorch_model.fp16.safetensors");
    fs::rename(transformer.join("part-1.safetensors"), variant).unwrap();
    load(&model).unwrap();
}

fn worker(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_evocache-worker")).args(arguments).output().unwrap()
}

#[test]
fn the_binary_answers_with_error_hint_and_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, picture) = (model_dir().to_str().unwrap().to_owned(), at("picture.png"));
    let generate = |extra: &[&str]| {
        let mut arguments = vec!["generate", "--model", &model, "--prompt", "a pizza", "--out", &picture];
        arguments.extend_from_slice(extra);
        worker(&arguments)
    };
    let fails = |output: Output, wanted: &[&str]| {
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{text}");
        assert!(output.stdout.is_empty());
        assert!(text.starts_with("error: "), "{text}");
        for part in wanted {
            assert!(text.contains(part), "'{text}' does not say '{part}'");
        }
    };
    fails(worker(&["inspect", "--model", &at("nothing")]), &["model_index.json", "hint: a model is a folder"]);
    fs::write(at("text.json"), "not json").unwrap();
    fails(generate(&["--schedule", &at("text.json")]), &["text.json", "is not a schedule", "not JSON"]);
    fs::write(at("other.json"), r#"{"cache": 1}"#).unwrap();
    fails(generate(&["--schedule", &at("other.json")]), &["other.json", "neither an evocache schedule"]);
    let alpha = evocache_proto::domain::Layout::pixart(28).unwrap();
    let alpha = evocache_proto::domain::Schedule::all_compute(alpha.into(), 20).unwrap();
    fs::write(at("alpha.json"), evocache_proto::formats::write_ecad(&alpha, "alpha").unwrap()).unwrap();
    fails(generate(&["--schedule", &at("alpha.json")]), &["block*28", "block*12", "hint: "]);
    let golden = model_dir().join("golden/cached_fora_3.json");
    fails(
        generate(&["--schedule", golden.to_str().unwrap(), "--steps", "12"]),
        &["has 20 steps", "hint: omit --steps"],
    );
    fails(generate(&["--height", "30"]), &["height 30 is not a multiple of 4"]);
    fails(
        generate(&["--device", "cuda:0"]),
        &["device cuda:0 cannot be used", "without CUDA", "hint: build one with deploy/cuda/build.sh"],
    );
    assert!(!Path::new(&picture).exists());
}
