//! `generate`: pictures from prompts, with a schedule or uncached.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use evocache_proto::domain::Schedule;
use evocache_proto::formats;

use super::model::ModelArgs;
use super::sampler::{SamplerArgs, guidance};
use super::schedule::read_schedule;
use super::{CliError, Result, prompts};
use crate::cancel::CancelToken;
use crate::evaluator::api::EvaluateError;
use crate::evaluator::binning;
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::pipeline::{BatchRequest, Pipeline};
use crate::models::block_model::LatentSize;
use crate::picture::Picture;

/// Generate pictures, uncached or with a caching schedule
///
/// In f32, a seed gives the same picture as diffusers with `torch.Generator("cpu").manual_seed(seed)` and the same
/// steps, guidance, height and width. Two settings are on by default in diffusers' PixArt pipelines but off here:
/// --clean-caption (clean_caption=True) and --resolution-binning (use_resolution_binning=True).
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  evocache-worker generate --model PixArt-XL-2-1024-MS --prompt 'a red apple' --clean-caption --resolution-binning --out apple.png
  evocache-worker generate --model worker/models/emoji --prompt 'a red apple' --guidance 3 --solver-order 1 \\
      --timesteps 999,732,478,243,50 --out apple.png")]
pub struct Generate {
    /// The model to load.
    #[command(flatten)]
    model: ModelArgs,
    /// Text prompt; for a class-conditional model, a class by name or number
    #[arg(long, required_unless_present = "prompts_file", conflicts_with = "prompts_file")]
    prompt: Option<String>,
    /// File with one prompt per line; --out is then a folder, and the Nth picture uses seed + N - 1
    #[arg(long, value_name = "FILE")]
    prompts_file: Option<PathBuf>,
    /// Negative prompt
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// Seed of the first picture's initial noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Pictures per batch
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Denoising steps [default: the schedule's, or the number of --timesteps or --sigmas, or 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,
    /// Overrides of the folder's sampler settings.
    #[command(flatten)]
    sampler: SamplerArgs,
    /// Guidance scale: classifier-free (1 or less turns it off), or the input of a guidance-distilled model
    #[arg(long, default_value_t = 4.5, value_parser = guidance)]
    guidance: f64,
    /// Height in pixels [default: the model's native height]
    #[arg(long)]
    height: Option<u32>,
    /// Width in pixels [default: the model's native width]
    #[arg(long)]
    width: Option<u32>,
    /// Generate at the nearest size that PixArt was trained at, then resize and crop to the requested size
    #[arg(long)]
    resolution_binning: bool,
    /// Caching schedule as JSON, in evocache's or ECAD's format [default: compute everything]
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Device to run on: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// PNG file to write; with --prompts-file, the folder for the PNG files
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

impl Generate {
    /// Runs the subcommand.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        self.check_out()?;
        let prompts = match (&self.prompt, &self.prompts_file) {
            (Some(prompt), _) => vec![prompt.clone()],
            (None, Some(file)) => prompts::read(file)?,
            (None, None) => return Err(CliError::new("no prompt given").hint("give --prompt or --prompts-file")),
        };
        let pipeline = self.model.load(self.device)?.with_sampler(&self.sampler.options())?;
        let (schedule, told) = self.schedule(&pipeline)?;
        let grid = told.as_ref().and_then(|told| told.grid.clone()).and_then(|grid| self.sampler.but_for(grid));
        pipeline.sample_on(grid.as_slice())?;
        let (size, pixels) = self.size(&pipeline)?;
        self.check_memory(&pipeline, size, &schedule, prompts.len())?;
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
            let generated = pipeline.generate_as(&request, pixels, &CancelToken::new(), &mut |_, _| ())?;
            for i in 0..count {
                self.write(first + i, &Picture::from_batch(&generated.pictures, i)?)?;
            }
            trace.get_or_insert(generated.trace);
        }
        let Some(trace) = trace else { return Ok(()) };
        let grid = match grid {
            Some(grid) => format!(" on the grid of the schedule file ({grid})"),
            None => String::new(),
        };
        let passes =
            if schedule.decides_guidance() { format!(", {} passes", schedule.passes()) } else { String::new() };
        let what = if self.prompts_file.is_some() { format!("{} pictures: ", prompts.len()) } else { String::new() };
        writeln!(
            out,
            "{}: {what}{} steps{grid}{passes}, {} slots computed, {} reused, {} forecast, peak cache {} bytes",
            self.out.display(),
            schedule.steps(),
            trace.computed,
            trace.reused,
            trace.forecast,
            trace.peak_cache_bytes
        )?;
        for (setting, value) in told.iter().flat_map(|told| &told.made_with) {
            if let Some(here) = self.differs(setting, value) {
                writeln!(out, "the schedule was made for {setting} {value}, but this run used {here}")?;
            }
        }
        Ok(())
    }

    /// Fails before the run if pictures cannot be written.
    fn check_out(&self) -> Result<()> {
        let failed = |why: String| CliError::new(format!("cannot write '{}': {why}", self.out.display()));
        if self.prompts_file.is_some() {
            return std::fs::create_dir_all(&self.out).map_err(|e| failed(e.to_string()));
        }
        if self.out.is_dir() {
            return Err(failed("it is a folder".into()).hint("give the path of a file, such as picture.png"));
        }
        let folder = self.out.parent().filter(|folder| !folder.as_os_str().is_empty());
        match folder {
            Some(folder) if !folder.is_dir() => {
                let why = format!("'{}' is not a folder", folder.display());
                Err(failed(why).hint("create the folder, or give another path"))
            }
            _ => Ok(()),
        }
    }

    /// The size to generate at, and, with `--resolution-binning`, the height and width to resize to.
    fn size(&self, pipeline: &Pipeline) -> Result<(LatentSize, Option<(usize, usize)>)> {
        if !self.resolution_binning {
            return Ok((pipeline.latent_size(self.height, self.width)?, None));
        }
        let class = pipeline.folder().pipeline();
        if !class.starts_with("PixArt") {
            return Err(CliError::new(format!("--resolution-binning is for PixArt models, this is a {class}")));
        }
        // The requested size must be valid without binning too.
        let asked = pipeline.latent_size(self.height, self.width)?;
        let asked = (asked.height * asked.scale, asked.width * asked.scale);
        let (height, width) = binning::nearest(pipeline.native(), asked.0, asked.1)?;
        let size = pipeline.latent_size(u32::try_from(height).ok(), u32::try_from(width).ok())?;
        Ok((size, Some(asked)))
    }

    /// Fails if a batch needs more than `--memory`.
    fn check_memory(&self, pipeline: &Pipeline, size: LatentSize, schedule: &Schedule, pictures: usize) -> Result<()> {
        let Some(limit) = self.model.memory else { return Ok(()) };
        let guidance = pipeline.guidance(self.guidance);
        let batch = u64::from(self.batch).min(pictures as u64);
        let needed = pipeline.memory(size, guidance).peak(schedule, &pipeline.cost(size, guidance), batch);
        if needed <= limit { Ok(()) } else { Err(EvaluateError::Memory { what: "the run", needed, limit }.into()) }
    }

    /// Writes picture `number`.
    fn write(&self, number: usize, picture: &Picture) -> Result<()> {
        let failed = |e| CliError::new(format!("cannot write '{}': {e}", self.out.display()));
        let path =
            if self.prompts_file.is_some() { self.out.join(format!("{number:05}.png")) } else { self.out.clone() };
        std::fs::write(path, picture.png()?).map_err(failed)
    }

    /// This run's value of a setting that the schedule was made for, if it differs from `value`.
    fn differs(&self, setting: &str, value: &str) -> Option<String> {
        let pixels = |side: Option<u32>| side.map_or("the model's native size".to_owned(), |side| side.to_string());
        let here = match setting {
            "guidance_scale" => self.guidance.to_string(),
            "height" => pixels(self.height),
            "width" => pixels(self.width),
            _ => return None,
        };
        let same = match (here.parse::<f64>(), value.parse::<f64>()) {
            (Ok(here), Ok(value)) => here == value,
            _ => here == value,
        };
        (!same).then_some(here)
    }

    fn schedule(&self, pipeline: &Pipeline) -> Result<(Schedule, Option<formats::Read>)> {
        match &self.schedule {
            None => {
                Schedule::all_compute(pipeline.layout().clone(), self.steps.unwrap_or_else(|| self.sampler.steps()))
                    .map(|schedule| (schedule, None))
                    .map_err(|e| CliError::new(e.to_string()))
            }
            Some(path) => {
                let read = read_schedule(path, pipeline.layout())?;
                let schedule = read.schedule.clone();
                match self.steps {
                    Some(steps) if steps != schedule.steps() => Err(CliError::new(format!(
                        "schedule '{}' has {} steps, but --steps is {steps}",
                        path.display(),
                        schedule.steps()
                    ))
                    .hint("omit --steps: a schedule has its own step count")),
                    _ => Ok((schedule, Some(read))),
                }
            }
        }
    }
}
