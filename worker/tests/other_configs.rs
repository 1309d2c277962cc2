//! Configs that the bundled model does not have: tiny models with random weights against diffusers and transformers
//! (`fixtures/make.py`).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and shows its numbers"
)]

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::{plain_forward, relative_error};
use evocache_worker::files::config::Config;
use evocache_worker::files::weights::{Single, Weights};
use evocache_worker::models::block_model::{BlockModel, Conditioning, Geometry, LatentSize, Prompts};
use evocache_worker::models::clip::{Clip, ClipConfig};
use evocache_worker::models::pixart::{PixArt, PixArtConfig};
use evocache_worker::models::t5::{T5Config, T5Encoder};
use evocache_worker::models::tokenizer::Tokens;
use evocache_worker::models::vae::{VaeConfig, VaeDecoder};

const LIMIT: f64 = 1e-5;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Config, weights and golden tensors of a tiny model.
fn open(name: &str, stem: &str) -> (Config, Weights, HashMap<String, Tensor>) {
    let folder = folder(name);
    (
        Config::read(&folder.join("config.json")).unwrap(),
        Weights::open(&folder, stem, Single::First, &Device::Cpu).unwrap(),
        candle_core::safetensors::load(folder.join("golden.safetensors"), &Device::Cpu).unwrap(),
    )
}

fn tokens(golden: &HashMap<String, Tensor>) -> Tokens {
    let read = |name: &str| golden[name].to_dtype(DType::U32).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    Tokens::new(read("ids"), read("mask"), golden["ids"].dim(1).unwrap()).unwrap()
}

fn assert_agrees(found: &Tensor, wanted: &Tensor, what: &str) {
    let error = relative_error(found, wanted);
    println!("{what}: {error:.2e}");
    assert!(error < LIMIT, "{what}: {error:e}");
}

#[test]
fn pixart_with_micro_conditions_on_a_picture_that_is_not_square() {
    let (config, weights, golden) = open("pixart", "diffusion_pytorch_model");
    let config = PixArtConfig::read(&config).unwrap();
    assert!(config.sized && config.interpolation == 2.0);
    let model = PixArt::load(&weights, config).unwrap();
    let conditioning = Conditioning {
        prompts: Prompts::masked(golden["captions"].clone(), golden["mask"].clone()),
        guidance: None,
        size: LatentSize { height: 12, width: 8, scale: 8 },
    };
    let bound = model.condition(&conditioning).unwrap();
    let output = plain_forward(&model, &*bound, &golden["latents"], 321.0);
    assert_agrees(&output, &golden["output"], "transformer");
    // Costs without guidance are half of those with it, except for parts that the batch shares.
    let cost = |guided| model.cost(&Geometry { size: conditioning.size, tokens: 5, guided });
    let (with, without) = (cost(true), cost(false));
    assert_eq!(with.slot_macs, without.slot_macs.iter().map(|macs| 2 * macs).collect::<Vec<_>>());
    assert_eq!(without.slot_cache_bytes[0], 24 * 24 * 4);
    let output = bound.prepare(&golden["latents"], 321.0).unwrap().run(model.layout().slot(0)).unwrap();
    assert_eq!(output.elem_count() as u64 * 4, 2 * without.slot_cache_bytes[0]);
}

#[test]
fn t5_without_gates() {
    let (config, weights, golden) = open("t5", "model");
    let encoder = T5Encoder::load(&weights, T5Config::read(&config).unwrap()).unwrap();
    assert_agrees(&encoder.encode(&tokens(&golden)).unwrap(), &golden["output"], "T5");
}

#[test]
fn vae_with_a_shift_and_statistics() {
    let (config, weights, golden) = open("vae", "diffusion_pytorch_model");
    let decoder = VaeDecoder::load(&weights, VaeConfig::read(&config, true).unwrap()).unwrap();
    assert_agrees(&decoder.decode(&golden["latents"]).unwrap(), &golden["output"], "decoder");
}

#[test]
fn clip_with_exact_gelu_that_pads_with_its_end_token() {
    let (config, weights, golden) = open("clip", "model");
    let clip = Clip::load(&weights, ClipConfig::read(&config).unwrap()).unwrap();
    assert_agrees(&clip.embed_texts(&tokens(&golden)).unwrap(), &golden["text"], "text");
    assert_agrees(&clip.embed_images(&golden["pixels"]).unwrap(), &golden["image"], "picture");
    let short = Tokens::new(vec![38, 39, 77], vec![1, 1, 1], 3).unwrap();
    assert!(clip.embed_texts(&short).unwrap_err().to_string().contains("token 77, but CLIP knows 40"));
}
