//! `generate`: pictures from a prompt, by a schedule or uncached.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use evocache_proto::domain::Schedule;

use super::model::ModelArgs;
use super::{CliError, Result, prompts, read_schedule};
use crate::cancel::CancelToken;
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::pipeline::{BatchRequest, Pipeline};
use crate::picture::Picture;

/// Generate pictures, uncached or by a caching schedule.
///
/// A seed gives the picture that diffusers gives for `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Debug, Clone, Args)]
pub struct Generate {
    /// What to load.
    #[command(flatten)]
    model: ModelArgs,
    /// What to draw; for a model of classes, a label or number of one
    #[arg(long, required_unless_present = "prompts_file", conflicts_with = "prompts_file")]
    prompt: Option<String>,
    /// What to draw, one a line: --out is a folder then, and each picture has the seed after that of the one before
    #[arg(long, value_name = "FILE")]
    prompts_file: Option<PathBuf>,
    /// What not to draw
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// Seed of the initial noise, of the first picture
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Pictures that are generated together
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
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
    /// PNG file to write, or folder of such with --prompts-file
    #[arg(long, value_name = "PATH")]
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
        let prompts = match (&self.prompt, &self.prompts_file) {
            (Some(prompt), _) => vec![prompt.clone()],
            (None, Some(file)) => prompts::read(file)?,
            (None, None) => return Err(CliError::new("nothing to draw").hint("give --prompt or --prompts-file")),
        };
        let mut texts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        texts.push(&self.negative_prompt);
        let texts = pipeline.encode(&texts)?;
        let mut trace = None;
        for first in (0..prompts.len()).step_by(self.batch as usize) {
            let count = prompts.len().min(first + self.batch as usize) - first;
            let seeds: Vec<u64> = (first..first + count).map(|i| self.seed.wrapping_add(i as u64)).collect();
            let request = BatchRequest {
                prompts: texts.batch(first, count)?,
                negative: texts.repeated(prompts.len(), count)?,
                size,
                seeds: &seeds,
                guidance: pipeline.guidance(self.guidance),
                schedule: &schedule,
            };
            let generated = pipeline.generate(&request, &CancelToken::new(), &mut |_, _| ())?;
            for i in 0..count {
                self.write(first + i, &Picture::from_batch(&generated.pictures, i)?)?;
            }
            trace.get_or_insert(generated.trace);
        }
        let Some(trace) = trace else { return Ok(()) };
        let what = if self.prompts_file.is_some() { format!("{} pictures: ", prompts.len()) } else { String::new() };
        writeln!(
            out,
            "{}: {what}{} steps, {} slots computed, {} reused, {} forecast, peak cache {} bytes",
            self.out.display(),
            schedule.steps(),
            trace.computed,
            trace.reused,
            trace.forecast,
            trace.peak_cache_bytes
        )?;
        Ok(())
    }

    /// Writes picture `number`.
    fn write(&self, number: usize, picture: &Picture) -> Result<()> {
        let failed = |e| CliError::new(format!("cannot write '{}': {e}", self.out.display()));
        let path = if self.prompts_file.is_some() {
            std::fs::create_dir_all(&self.out).map_err(failed)?;
            self.out.join(format!("{number:05}.png"))
        } else {
            self.out.clone()
        };
        std::fs::write(path, picture.png()?).map_err(failed)
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
