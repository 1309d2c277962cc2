//! Whole pipelines of every family against diffusers: tiny random models of the true structure (`tests/fixtures`), made
//! by `tests/python/pipelines.py`. `EVOCACHE_PARITY` names the folder of another pipeline, such as those of true width
//! that `tests/python/true_widths.sh` makes. `-- --nocapture` prints the errors.

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
use evocache_proto::domain::{Decision, Schedule};
use evocache_worker::cancel::CancelToken;
use evocache_worker::evaluator::pipeline::{BatchRequest, Generated, Pipeline};
use evocache_worker::models::block_model::{Conditioning, LatentSize, Prompts};
use serde_json::Value;

/// Largest relative error of any tensor.
const LIMIT: f64 = 1e-4;

/// The same in f16, which has 10 bits of mantissa. SD 3's scores are large, as its queries and keys are not normalized.
const LIMIT_F16: f64 = 5e-2;

/// A pipeline and the results of diffusers for it.
struct Case {
    pipeline: Pipeline,
    golden: HashMap<String, Tensor>,
    about: Value,
    size: LatentSize,
    rows: Vec<(String, f64)>,
}

impl Case {
    fn open(folder: &Path) -> Self {
        Self::open_as(folder, DType::F32)
    }

    fn open_as(folder: &Path, dtype: DType) -> Self {
        let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let about: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap();
        let pipeline = Pipeline::load_as(folder, Device::Cpu, dtype).unwrap();
        let side = |name: &str| Some(u32::try_from(about[name].as_u64().unwrap()).unwrap());
        let size = pipeline.latent_size(side("height"), side("width")).unwrap();
        let golden = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        Self { pipeline, golden, about, size, rows: vec![] }
    }

    fn agrees(&mut self, what: &str, found: &Tensor, wanted: &Tensor) {
        self.rows.push((what.into(), relative_error(found, wanted)));
    }

    fn steps(&self) -> u32 {
        u32::try_from(self.about["steps"].as_u64().unwrap()).unwrap()
    }

    fn texts(&self, field: &str) -> Vec<String> {
        self.about[field].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// Encodes the prompts, and the negative prompt as often.
    fn encode(&self) -> (Prompts, Prompts) {
        let texts = self.texts("prompts");
        let mut all: Vec<&str> = texts.iter().map(String::as_str).collect();
        all.push(self.about["negative"].as_str().unwrap());
        let encoded = self.pipeline.encode(&all).unwrap();
        (encoded.batch(0, texts.len()).unwrap(), encoded.repeated(texts.len(), texts.len()).unwrap())
    }

    /// Runs a schedule and records the largest error after any step.
    fn run(&mut self, what: &str, schedule: &Schedule, by_step: &str, pictures: &str) -> Generated {
        let (prompts, negative) = self.encode();
        let seeds: Vec<u64> = self.about["seeds"].as_array().unwrap().iter().map(|s| s.as_u64().unwrap()).collect();
        let guidance = self.pipeline.guidance(self.about["guidance"].as_f64().unwrap());
        let request = BatchRequest { prompts, negative, size: self.size, seeds: &seeds, guidance, schedule };
        let (wanted, mut worst) = (&self.golden[by_step], 0f64);
        let generated = self
            .pipeline
            .generate(&request, &CancelToken::new(), &mut |step, latents| {
                worst = worst.max(relative_error(latents, &wanted.get(step as usize).unwrap()));
            })
            .unwrap();
        self.rows.push((format!("latents after any step, {what}"), worst));
        let wanted = self.golden[pictures].clone();
        self.agrees(&format!("pictures, {what}"), &generated.pictures, &wanted);
        // The cache memory is predicted exactly for every family.
        let cost = self.pipeline.cost(self.size, guidance);
        let predicted = schedule.peak_cache_bytes(&cost) * seeds.len() as u64;
        assert_eq!(generated.trace.peak_cache_bytes, predicted, "{what}");
        assert_eq!(generated.trace.computed, schedule.computed() as u64, "{what}");
        generated
    }

    fn schedule(&self) -> Schedule {
        let decisions = self.golden["decisions"].to_vec2::<u8>().unwrap();
        Schedule::from_fn(self.pipeline.layout().clone(), self.steps(), |step, slot| {
            match decisions[step as usize][slot] {
                0 => Decision::Compute,
                1 => Decision::Reuse,
                _ => Decision::Forecast,
            }
        })
        .unwrap()
    }

    fn slot_names(&self) -> Vec<String> {
        (0..self.pipeline.layout().slots()).map(|slot| self.pipeline.layout().slot_name(slot)).collect()
    }

    /// Prints all rows, then fails if one is above the limit.
    fn check(self, name: &str, limit: f64) {
        println!("\n{name:<50} {:>10}", "error");
        for (what, error) in &self.rows {
            println!("{what:<50} {error:>10.2e}");
        }
        for (what, error) in self.rows {
            assert!(error <= limit, "{name}, {what}: {error:e} is above {limit:e}");
        }
    }
}

/// The conditioning that diffusers gave its transformer, unconditional rows first.
fn golden_prompts(golden: &HashMap<String, Tensor>) -> Prompts {
    let classes = golden.get("classes").map(|x| x.to_dtype(DType::U32).unwrap());
    let part = |name: &str| golden.get(name).cloned();
    Prompts { embeddings: part("embeddings"), mask: part("mask"), pooled: part("pooled"), classes }
}

/// Every component of the first block of each kind, and the whole transformer at two steps.
fn transformer_errors(case: &Case) -> Vec<(String, f64)> {
    let timesteps = case.pipeline.sampler(case.steps(), case.size).unwrap().timesteps().to_vec();
    let guidance = case.pipeline.guidance(case.about["guidance"].as_f64().unwrap());
    let given = golden_prompts(&case.golden);
    // The conditioning of diffusers is doubled already if guidance doubles it.
    let given = Conditioning { prompts: given.clone(), ..guidance.pair(&given, &given, case.size).unwrap() };
    let model = case.pipeline.transformer();
    let bound = model.condition(&given).unwrap();
    let input = |x: &Tensor| if guidance.is_on() { Tensor::cat(&[x, x], 0).unwrap() } else { x.clone() };
    let mut rows = vec![];
    let mut state = bound.prepare(&input(&case.golden["latents_before.0"]), timesteps[0]).unwrap();
    for (index, slot) in case.slot_names().iter().enumerate() {
        let output = state.run(model.layout().slot(index)).unwrap();
        state.combine(model.layout().slot(index), &output).unwrap();
        if let Some(wanted) = case.golden.get(&format!("slot.{slot}")) {
            rows.push((format!("raw output of {slot}"), relative_error(&output, wanted)));
        }
    }
    assert!(rows.len() >= model.layout().groups().len());
    for step in [0, case.steps() as usize / 2] {
        let latents = input(&case.golden[&format!("latents_before.{step}")]);
        let output = plain_forward(model, &*bound, &latents, timesteps[step]);
        // Channels beyond those of the latents are a learned variance, which the worker's models drop.
        let wanted = case.golden[&format!("transformer.{step}")].narrow(1, 0, output.dim(1).unwrap()).unwrap();
        rows.push((format!("transformer at step {step}"), relative_error(&output, &wanted)));
    }
    rows
}

fn agrees_with_diffusers(folder: &Path) {
    let mut case = Case::open(folder);
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(case.slot_names(), case.texts("slots"));
    let scale = case.about["guidance"].as_f64().unwrap();
    let guidance = case.pipeline.guidance(scale);

    // Text encoders.
    let (prompts, negative) = case.encode();
    let given = golden_prompts(&case.golden);
    let conditioning = guidance.pair(&negative, &prompts, case.size).unwrap();
    let found = &conditioning.prompts;
    for (what, found, wanted) in [
        ("text embeddings", &found.embeddings, &given.embeddings),
        ("pooled text embedding", &found.pooled, &given.pooled),
    ] {
        assert_eq!(found.is_some(), wanted.is_some(), "{what}");
        if let (Some(found), Some(wanted)) = (found, wanted) {
            case.agrees(what, found, wanted);
        }
    }
    if let (Some(found), Some(wanted)) = (&found.classes, &given.classes) {
        assert_eq!(found.to_vec1::<u32>().unwrap(), wanted.to_vec1::<u32>().unwrap());
    }

    // Noise, then the transformer on diffusers' own conditioning.
    let seeds: Vec<u64> = case.about["seeds"].as_array().unwrap().iter().map(|s| s.as_u64().unwrap()).collect();
    let noise = case.pipeline.noise(&seeds, case.size).unwrap();
    let wanted = case.golden["initial_latents"].clone();
    case.agrees("initial noise", &noise, &wanted);
    let rows = transformer_errors(&case);
    case.rows.extend(rows);

    // Decoder, whole runs.
    let last = case.golden["latents_by_step"].get(case.steps() as usize - 1).unwrap();
    let (found, wanted) = (case.pipeline.vae().decode(&last).unwrap(), case.golden["decoded"].clone());
    case.agrees("decoder", &found, &wanted);
    let wanted = case.golden["decoded_in_tiles"].clone();
    let (whole, cost) =
        (case.golden["decoded"].clone(), case.pipeline.vae().decode_macs(case.size.height, case.size.width));
    case.pipeline = case.pipeline.with_tiles();
    let tiled = case.pipeline.vae().decode(&last).unwrap();
    case.agrees("decoder in tiles", &tiled, &wanted);
    // DiT's picture is one tile.
    let cut = relative_error(&tiled, &whole) > 1e-3;
    assert_eq!(cut, case.pipeline.vae().decode_macs(case.size.height, case.size.width) > cost);
    case.pipeline = Pipeline::load(folder, Device::Cpu).unwrap();
    let uncached = Schedule::all_compute(case.pipeline.layout().clone(), case.steps()).unwrap();
    case.run("uncached", &uncached, "latents_by_step", "pictures");
    let schedule = case.schedule();
    case.run("cached", &schedule, "cached_by_step", "cached_pictures");
    case.check(&name, LIMIT);
}

/// Covers the code for half precision on a GPU, with candle's own operations: candle's CPU backend multiplies f16, but
/// not bf16.
#[test]
fn transformers_in_half_precision_are_near_diffusers_in_f32() {
    for name in ["pixart1024", "sigma", "flux", "schnell", "dit", "sd3", "sd35"] {
        let mut case = Case::open_as(&fixture(name), DType::F16);
        let rows = transformer_errors(&case);
        case.rows.extend(rows);
        // This run also checks the prediction of cache memory, with half the bytes.
        let schedule = case.schedule();
        let run = case.rows.len();
        let generated = case.run("cached", &schedule, "cached_by_step", "cached_pictures");
        assert_eq!(generated.latents.dtype(), DType::F32);
        // Random weights amplify small differences over the steps, so errors after later steps mean nothing.
        case.rows.truncate(run);
        case.check(&format!("{name} in f16"), LIMIT_F16);
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn pixart_alpha_with_micro_conditions_agrees_with_diffusers() {
    agrees_with_diffusers(&fixture("pixart1024"));
}

#[test]
fn pixart_sigma_agrees_with_diffusers() {
    agrees_with_diffusers(&fixture("sigma"));
}

#[test]
fn flux_dev_agrees_with_diffusers() {
    agrees_with_diffusers(&fixture("flux"));
}

#[test]
fn flux_schnell_agrees_with_diffusers() {
    agrees_with_diffusers(&fixture("schnell"));
}

#[test]
fn dit_agrees_with_diffusers() {
    agrees_with_diffusers(&fixture("dit"));
}

#[test]
fn stable_diffusion_3_without_t5_agrees_with_diffusers() {
    agrees_with_diffusers(&fixture("sd3"));
}

#[test]
fn stable_diffusion_3_5_agrees_with_diffusers() {
    agrees_with_diffusers(&fixture("sd35"));
}

#[test]
#[ignore = "needs EVOCACHE_PARITY, the folder of a pipeline with its golden.safetensors"]
fn another_pipeline_agrees_with_diffusers() {
    #[expect(clippy::disallowed_methods, reason = "a test takes no arguments")]
    let folder = std::env::var("EVOCACHE_PARITY").unwrap();
    agrees_with_diffusers(Path::new(&folder));
}
