//! `generate`: one picture from a prompt, by a schedule or uncached.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use evocache_proto::domain::Schedule;

use super::model::ModelArgs;
use super::{CliError, Result, read_schedule};
use crate::cancel::CancelToken;
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::pipeline::{BatchRequest, Pipeline};
use crate::picture::Picture;

/// Generate a picture, uncached or by a caching schedule.
///
/// A seed gives the picture that diffusers gives for `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Debug, Clone, Args)]
pub struct Generate {
    /// What to load.
    #[command(flatten)]
    model: ModelArgs,
    /// What to draw; for a model of classes, a label or number of one
    #[arg(long)]
    prompt: String,
    /// What not to draw
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// Seed of the initial noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Denoising steps [default: the schedule's, or 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,
    /// Guidance scale: classifier-free, where 1 or less turns it off, or the one a distilled model takes
    #[arg(long, default_value_t = 4.5)]
    guidance: f64,
    /// Pixels [default: the model's native height]
    #[arg(long)]
    height: Option<u32>,
    /// Pixels [default: the model's native width]
    #[arg(long)]
    width: Option<u32>,
    /// Schedule to run by, as JSON (evocache's or ECAD's) [default: compute everything]
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Where to run: cpu, cuda, cuda:N, metal
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// PNG file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Steps without a schedule.
const DEFAULT_STEPS: u32 = 20;

impl Generate {
    /// Runs the verb.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        let pipeline = self.model.load(self.device)?;
        let schedule = self.schedule(&pipeline)?;
        let size = pipeline.latent_size(self.height, self.width)?;
        let texts = pipeline.encode(&[&self.prompt, &self.negative_prompt])?;
        let request = BatchRequest {
            prompts: texts.batch(0, 1)?,
            negative: texts.batch(1, 1)?,
            size,
            seeds: &[self.seed],
            guidance: pipeline.guidance(self.guidance),
            schedule: &schedule,
        };
        let generated = pipeline.generate(&request, &CancelToken::new(), &mut |_, _| ())?;
        let png = Picture::from_batch(&generated.pictures, 0)?.png()?;
        std::fs::write(&self.out, png)
            .map_err(|e| CliError::new(format!("cannot write '{}': {e}", self.out.display())))?;
        let trace = generated.trace;
        writeln!(
            out,
            "{}: {} steps, {} slots computed, {} reused, {} forecast, peak cache {} bytes",
            self.out.display(),
            schedule.steps(),
            trace.computed,
            trace.reused,
            trace.forecast,
            trace.peak_cache_bytes
        )?;
        Ok(())
    }

    fn schedule(&self, pipeline: &Pipeline) -> Result<Schedule> {
        match &self.schedule {
            None => Schedule::all_compute(pipeline.layout().clone(), self.steps.unwrap_or(DEFAULT_STEPS))
                .map_err(|e| CliError::new(e.to_string())),
            Some(path) => {
                let schedule = read_schedule(path, pipeline.layout())?;
                match self.steps {
                    Some(steps) if steps != schedule.steps() => Err(CliError::new(format!(
                        "schedule '{}' has {} steps, --steps asks for {steps}",
                        path.display(),
                        schedule.steps()
                    ))
                    .hint("leave --steps away: a schedule carries its own step count")),
                    _ => Ok(schedule),
                }
            }
        }
    }
}
