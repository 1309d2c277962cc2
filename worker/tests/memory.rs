//! Predicted against measured memory, for ten schedules: a counting allocator measures the peak of every run.
//! `cargo test -p evocache-worker --test memory -- --nocapture` prints the tables.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code,
    reason = "a test fails by panicking and shows its numbers; only an allocator sees every allocation"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use common::random_schedule;
use evocache_proto::domain::{Decision, Schedule};
use evocache_worker::cancel::CancelToken;
use evocache_worker::evaluator::memory::Memory;
use evocache_worker::evaluator::pipeline::{BatchRequest, Pipeline};
use evocache_worker::executor::{Denoise, Guidance};
use evocache_worker::files::config::Config;
use evocache_worker::files::weights::Weights;
use evocache_worker::models::block_model::{BlockModel, Geometry, LatentSize, Prompts};
use evocache_worker::models::dit::{Dit, DitConfig};
use evocache_worker::models::flux::{Flux, FluxConfig};
use evocache_worker::models::pixart::{PixArt, PixArtConfig};
use evocache_worker::models::sd3::{Sd3, Sd3Config};
use evocache_worker::samplers::SamplerFactory;
use evocache_worker::samplers::flow_match::FlowSigmas;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Largest relative error of a prediction.
const LIMIT: f64 = 0.05;

/// Held by each test, because they share the allocator.
static ALONE: Mutex<()> = Mutex::new(());

/// Ten schedules of four steps over the range of densities, half of them with forecasts.
fn schedules(layout: &Arc<evocache_proto::domain::Layout>) -> Vec<Schedule> {
    let mut schedules = vec![
        Schedule::all_compute(layout.clone(), 4).unwrap(),
        Schedule::from_fn(layout.clone(), 4, |step, _| if step % 2 == 0 { Decision::Compute } else { Decision::Reuse })
            .unwrap(),
        Schedule::from_fn(layout.clone(), 4, |step, _| if step < 2 { Decision::Compute } else { Decision::Forecast })
            .unwrap(),
    ];
    schedules.extend((0..7).map(|seed| random_schedule(layout, 4, seed, 20 + 10 * seed, seed % 2 == 1)));
    schedules
}

/// Peak of the bytes held while `act` runs, minus those held before.
fn peak(warm: bool, mut act: impl FnMut()) -> u64 {
    if !warm {
        // Memory that kernels and threads allocate once and keep is not part of a run.
        act();
    }
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    act();
    (PEAK.load(Ordering::Relaxed) - before) as u64
}

/// Prints a table of schedules and collects those whose prediction is too far off.
struct Table(Vec<String>);

impl Table {
    fn new() -> Self {
        println!("\n{:<22} {:>9} {:>12} {:>12} {:>7}", "model, schedule", "computed", "predicted", "measured", "off");
        Self(vec![])
    }

    fn row(&mut self, name: &str, i: usize, schedule: &Schedule, predicted: u64, measured: u64) {
        let off = predicted as f64 / measured as f64 - 1.0;
        let share = 100.0 * (1.0 - schedule.cache_hit_rate());
        println!("{name:<18} {i:>3} {share:>8.1}% {predicted:>12} {measured:>12} {:>6.1}%", 100.0 * off);
        if off.abs() > LIMIT {
            self.0.push(format!("{name}, schedule {i}: {off:.3}"));
        }
    }
}

/// Denoising memory without weights, for transformers of every family: wide enough that their tensors outweigh latents
/// and scratch space of kernels, and narrow enough for a test.
#[test]
fn predicted_memory_of_denoising_matches_the_measured_in_every_family() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let parse = |text: &str| Config::parse(Path::new("test"), text).unwrap();
    let weights = Weights::random(&Device::Cpu);
    let dit = r#"{"_class_name": "DiTTransformer2DModel", "norm_type": "ada_norm_zero", "num_layers": 3,
        "num_attention_heads": 8, "attention_head_dim": 64, "out_channels": 8}"#;
    let pixart = r#"{"_class_name": "PixArtTransformer2DModel", "num_layers": 3, "num_attention_heads": 8,
        "attention_head_dim": 64, "cross_attention_dim": 512, "caption_channels": 512, "sample_size": 32}"#;
    let flux = r#"{"_class_name": "FluxTransformer2DModel", "num_layers": 2, "num_single_layers": 3,
        "num_attention_heads": 4, "attention_head_dim": 128, "joint_attention_dim": 512, "guidance_embeds": true}"#;
    let sd3 = r#"{"_class_name": "SD3Transformer2DModel", "num_layers": 3, "num_attention_heads": 8,
        "caption_projection_dim": 512, "joint_attention_dim": 512}"#;
    let sd35 = r#"{"_class_name": "SD3Transformer2DModel", "num_layers": 3, "num_attention_heads": 8,
        "caption_projection_dim": 512, "joint_attention_dim": 512, "dual_attention_layers": [0, 1], "qk_norm": "rms_norm"}"#;
    let models: [(&str, Box<dyn BlockModel>); 5] = [
        ("dit", Box::new(Dit::load(&weights, DitConfig::read(&parse(dit)).unwrap()).unwrap())),
        ("pixart", Box::new(PixArt::load(&weights, PixArtConfig::read(&parse(pixart)).unwrap()).unwrap())),
        ("flux", Box::new(Flux::load(&weights, FluxConfig::read(&parse(flux)).unwrap()).unwrap())),
        ("sd3", Box::new(Sd3::load(&weights, Sd3Config::read(&parse(sd3)).unwrap()).unwrap())),
        ("sd35", Box::new(Sd3::load(&weights, Sd3Config::read(&parse(sd35)).unwrap()).unwrap())),
    ];
    let (class, samplers) = ("FlowMatchEulerDiscreteScheduler", r#"{"shift": 3.0}"#);
    let samplers = SamplerFactory::read(&parse(samplers), class, FlowSigmas::Trained).unwrap();
    let size = LatentSize { height: 24, width: 24, scale: 8 };
    let (images, mut table) = (1, Table::new());
    for (name, model) in &models {
        let guidance = Guidance::of_kind(model.guidance(), 3.0);
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let tokens = if *name == "dit" { 0 } else { 64 };
        let prompts = match *name {
            "dit" => Prompts::classes(Tensor::zeros(images, DType::U32, &Device::Cpu).unwrap()),
            "pixart" => Prompts::masked(zeros(&[images, tokens, 512]), zeros(&[images, tokens])),
            "flux" => Prompts::pooled(zeros(&[images, tokens, 512]), zeros(&[images, 768])),
            _ => Prompts::pooled(zeros(&[images, tokens, 512]), zeros(&[images, 2048])),
        };
        let geometry = Geometry { size, tokens, guided: guidance.is_on() };
        let memory = Memory { weights: 0, denoising: model.activations(&geometry), decoding: 0 };
        let cost = model.cost(&geometry);
        let noise = zeros(&[images, model.latent_channels(), size.height, size.width]);
        for (i, schedule) in schedules(model.layout()).iter().enumerate() {
            let measured = peak(i > 0, || {
                let conditioning = guidance.pair(&prompts, &prompts, size).unwrap();
                let mut sampler = samplers.start(4, model.image_tokens(size).unwrap()).unwrap();
                let cancel = CancelToken::new();
                let run = Denoise { model: &**model, conditioning: &conditioning, guidance, schedule, cancel: &cancel };
                drop(run.run(&mut *sampler, &noise, &mut |_: u32, _: &Tensor| ()).unwrap());
            });
            table.row(name, i, schedule, memory.peak(schedule, &cost, images as u64), measured);
        }
    }
    assert!(table.0.is_empty(), "{:#?}", table.0);
}

/// The bundled model from text to pictures. The peak is in denoising if the decoder works in tiles, else in decoding.
#[test]
fn predicted_memory_matches_the_measured_on_the_bundled_model() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut table = Table::new();
    for tiled in [true, false] {
        let pipeline = Pipeline::load(&common::model_dir(), Device::Cpu).unwrap();
        let pipeline = if tiled { pipeline.with_tiles() } else { pipeline };
        let size = pipeline.latent_size(Some(128), Some(128)).unwrap();
        let encoded = pipeline.encode(&["a red cat", ""]).unwrap();
        let guidance = pipeline.guidance(3.0);
        let (cost, memory) = (pipeline.cost(size, guidance), pipeline.memory(size, guidance));
        let mut schedules = schedules(pipeline.layout());
        if !tiled {
            // The peak of nearly all schedules is in the decoder.
            schedules.truncate(2);
        }
        let seeds = [1, 2];
        for (i, schedule) in schedules.iter().enumerate() {
            let measured = peak(i > 0, || {
                let request = BatchRequest {
                    prompts: encoded.repeated(0, 2).unwrap(),
                    negative: encoded.repeated(1, 2).unwrap(),
                    size,
                    seeds: &seeds,
                    guidance,
                    schedule,
                };
                drop(pipeline.generate(&request, &CancelToken::new(), &mut |_, _| ()).unwrap());
            });
            let name = if tiled { "emoji, in tiles" } else { "emoji" };
            let predicted = memory.peak(schedule, &cost, seeds.len() as u64);
            table.row(name, i, schedule, predicted, measured + memory.weights);
        }
    }
    // Comes last, when the other test's thread has freed its memory.
    weights(&mut table.0);
    assert!(table.0.is_empty(), "{:#?}", table.0);
}

/// Limit for the bytes of a loaded pipeline besides its weights: tokenizers and tables, independent of the precision.
const BESIDE: u64 = 2 << 20;

/// Compares the bytes of a loaded pipeline with the prediction, in f32 and with weight matrices in bf16.
fn weights(wrong: &mut Vec<String>) {
    println!("\n{:<22} {:>12} {:>12} {:>12}", "weights", "predicted", "measured", "beside");
    let mut beside = vec![];
    for dtype in [DType::F32, DType::BF16] {
        let before = HELD.load(Ordering::Relaxed);
        let pipeline = Pipeline::load_as(&common::model_dir(), Device::Cpu, dtype).unwrap();
        let measured = (HELD.load(Ordering::Relaxed) - before) as u64;
        let size = pipeline.latent_size(None, None).unwrap();
        let predicted = pipeline.memory(size, pipeline.guidance(3.0)).weights;
        let rest = measured.saturating_sub(predicted);
        println!("{:<22} {predicted:>12} {measured:>12} {rest:>12}", format!("emoji, {dtype:?}"));
        if predicted > measured || rest > BESIDE {
            wrong.push(format!("weights, {dtype:?}: {predicted} predicted, {measured} measured"));
        }
        beside.push((rest, predicted));
    }
    let [(f32, most), (bf16, _)] = beside[..] else { panic!("{beside:?}") };
    if f32.abs_diff(bf16) as f64 > LIMIT * most as f64 {
        wrong.push(format!("besides the weights f32 holds {f32}, bf16 {bf16}"));
    }
}
