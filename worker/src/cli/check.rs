//! `check`: compares a device's results with those of diffusers for the same weights.
//!
//! A folder's `golden.safetensors`, written by `worker/tests/python/pipelines.py`, has the results of diffusers:
//! prompts, seeds, steps and guidance in its metadata, latents after every step with and without a schedule, and
//! pictures.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use clap::Args;
use evocache_proto::domain::{Decision, Schedule};
use serde::Deserialize;

use super::table::Table;
use super::{CliError, Result};
use crate::cancel::CancelToken;
use crate::evaluator::device::{DeviceChoice, Precision};
use crate::evaluator::pipeline::{BatchRequest, Pipeline};

/// Compare a device's results with those of diffusers
///
/// Each model folder must have a golden.safetensors; worker/tests/fixtures has tiny models of every family. Fails if
/// the error of the latents after the first step, or in f32 after any step, is above a limit.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// Model folders with their golden.safetensors
    #[arg(required = true, value_name = "DIR")]
    models: Vec<PathBuf>,
    /// Device to run on: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Number format of the transformer: f32, f16 or bf16
    #[arg(long, default_value = "f32")]
    precision: Precision,
}

/// The golden file's metadata.
#[derive(Debug, Deserialize)]
struct About {
    prompts: Vec<String>,
    negative: String,
    seeds: Vec<u64>,
    steps: u32,
    guidance: f64,
    height: u32,
    width: u32,
}

struct Golden {
    about: About,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("golden.safetensors");
        let wrong = |problem: String| {
            CliError::new(format!("cannot read '{}': {problem}", path.display()))
                .hint("create it with worker/tests/python/pipelines.py")
        };
        let bytes = std::fs::read(&path).map_err(|e| wrong(e.to_string()))?;
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| wrong(e.to_string()))?;
        let about = metadata.metadata().as_ref().and_then(|fields| fields.get("about"));
        let about = about.ok_or_else(|| wrong("its metadata has no field 'about'".into()))?;
        let about = serde_json::from_str(about).map_err(|e| wrong(e.to_string()))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|e| wrong(e.to_string()))?;
        Ok(Self { about, tensors })
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| CliError::new(format!("golden.safetensors has no tensor '{name}'")))
    }
}

/// Largest allowed errors of latents relative to diffusers', after the first step and after any step.
fn limits(precision: Precision) -> (f64, f64) {
    match precision {
        // Devices add in different orders, and random weights amplify the rounding errors over the steps.
        Precision::F32 => (1e-4, 1e-3),
        Precision::F16 => (2e-2, f64::INFINITY),
        Precision::Bf16 => (8e-2, f64::INFINITY),
    }
}

impl Check {
    /// Runs the subcommand.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        writeln!(out, "{}: {}, error relative to diffusers in f32\n", self.device.describe(), self.precision)?;
        let (first_limit, any_limit) = limits(self.precision);
        let mut table =
            Table::new(&["model", "first step", "any step", "pictures", "cached, any step", "cached pictures", ""]);
        let mut wrong = vec![];
        for folder in &self.models {
            let name = folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into());
            let golden = Golden::read(folder)?;
            let pipeline = Pipeline::load_as(folder, self.device.open()?, self.precision.dtype())?;
            let layout = pipeline.layout().clone();
            let uncached =
                Schedule::all_compute(layout, golden.about.steps).map_err(|e| CliError::new(e.to_string()))?;
            let plain = errors(&pipeline, &golden, &uncached, ["latents_by_step", "pictures"])?;
            let cached =
                errors(&pipeline, &golden, &schedule(&pipeline, &golden)?, ["cached_by_step", "cached_pictures"])?;
            let good = plain.first <= first_limit && plain.any <= any_limit && cached.any <= any_limit;
            let shown = [plain.first, plain.any, plain.pictures, cached.any, cached.pictures];
            let mut row = vec![name.clone()];
            row.extend(shown.map(|error| format!("{error:.1e}")));
            row.push(if good { "ok" } else { "OFF" }.into());
            table.row(row);
            if !good {
                wrong.push(name);
            }
        }
        table.write(out)?;
        if wrong.is_empty() {
            return Ok(());
        }
        Err(CliError::new(format!(
            "{} off by more than {first_limit:.0e} after the first step or {any_limit:.0e} after any step",
            wrong.join(", ")
        )))
    }
}

struct Errors {
    first: f64,
    any: f64,
    pictures: f64,
}

fn errors(pipeline: &Pipeline, golden: &Golden, schedule: &Schedule, names: [&str; 2]) -> Result<Errors> {
    let about = &golden.about;
    let mut texts: Vec<&str> = about.prompts.iter().map(String::as_str).collect();
    texts.push(&about.negative);
    let encoded = pipeline.encode(&texts)?;
    let request = BatchRequest {
        prompts: encoded.batch(0, about.prompts.len())?,
        negative: encoded.repeated(about.prompts.len(), about.prompts.len())?,
        size: pipeline.latent_size(Some(about.height), Some(about.width))?,
        seeds: &about.seeds,
        guidance: pipeline.guidance(about.guidance),
        schedule,
    };
    let wanted = golden.tensor(names[0])?;
    let mut found = vec![];
    let generated = pipeline.generate(&request, &CancelToken::new(), &mut |_, latents| found.push(latents.clone()))?;
    let by_step = found
        .iter()
        .enumerate()
        .map(|(step, latents)| relative(latents, &wanted.get(step)?))
        .collect::<candle_core::Result<Vec<f64>>>()
        .map_err(crate::files::ModelError::from)?;
    let pictures = relative(&generated.pictures, golden.tensor(names[1])?).map_err(crate::files::ModelError::from)?;
    Ok(Errors {
        first: by_step.first().copied().unwrap_or(f64::NAN),
        any: by_step.iter().copied().fold(0.0, f64::max),
        pictures,
    })
}

/// ‖found − wanted‖ / ‖wanted‖.
fn relative(found: &Tensor, wanted: &Tensor) -> candle_core::Result<f64> {
    let found = found.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let wanted = wanted.to_dtype(DType::F64)?;
    let norm = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f64>().map(f64::sqrt);
    Ok(norm(&(found - &wanted)?)? / norm(&wanted)?)
}

/// The schedule of the golden file: 0 computes, 1 reuses, 2 forecasts.
fn schedule(pipeline: &Pipeline, golden: &Golden) -> Result<Schedule> {
    let decisions = golden.tensor("decisions")?.to_vec2::<u8>().map_err(crate::files::ModelError::from)?;
    let layout = pipeline.layout();
    if decisions.len() != golden.about.steps as usize || decisions.iter().any(|row| row.len() != layout.slots()) {
        return Err(CliError::new(format!("the schedule of golden.safetensors does not match the layout {layout}")));
    }
    let decision = |step: u32, slot: usize| match decisions[step as usize][slot] {
        0 => Decision::Compute,
        1 => Decision::Reuse,
        _ => Decision::Forecast,
    };
    Schedule::from_fn(layout.clone(), golden.about.steps, decision).map_err(|e| CliError::new(e.to_string()))
}
