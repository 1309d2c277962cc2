//! `generate`: pictures from a prompt, by a schedule or uncached.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use evocache_proto::domain::Schedule;
use evocache_proto::formats;

use super::model::ModelArgs;
use super::sampler::{SamplerArgs, guidance};
use super::{CliError, Result, prompts, read_schedule};
use crate::cancel::CancelToken;
use crate::evaluator::api::EvaluateError;
use crate::evaluator::binning;
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::pipeline::{BatchRequest, Pipeline};
use crate::models::block_model::LatentSize;
use crate::picture::Picture;

/// Generate pictures, uncached or by a caching schedule.
///
/// A seed gives the picture that diffusers gives for `torch.Generator("cpu").manual_seed(seed)` with the same settings, in f32:
/// steps, guidance, height and width. PixArt's pipelines there have two defaults that are off here: --clean-caption is
/// clean_caption=True, --resolution-binning is use_resolution_binning=True.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  evocache-worker generate --model PixArt-XL-2-1024-MS --prompt 'a red apple' --clean-caption --resolution-binning --out apple.png
  evocache-worker generate --model worker/models/emoji --prompt 'a red apple' --guidance 3 --solver-order 1 \\
      --timesteps 999,732,478,243,50 --out apple.png")]
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
    /// Denoising steps [default: the schedule's, or as many as --timesteps or --sigmas, or 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,
    /// What stands for the folder's sampler.
    #[command(flatten)]
    sampler: SamplerArgs,
    /// Guidance scale: classifier-free, where 1 or less turns it off, or the one a distilled model takes
    #[arg(long, default_value_t = 4.5, value_parser = guidance)]
    guidance: f64,
    /// Pixels [default: the model's native height]
    #[arg(long)]
    height: Option<u32>,
    /// Pixels [default: the model's native width]
    #[arg(long)]
    width: Option<u32>,
    /// Draw at the nearest size that PixArt was trained at, and bring the picture to the size that was asked for
    #[arg(long)]
    resolution_binning: bool,
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

impl Generate {
    /// Runs the verb.
    pub fn run(&self, out: &mut dyn Write) -> Result<()> {
        self.check_out()?;
        let prompts = match (&self.prompt, &self.prompts_file) {
            (Some(prompt), _) => vec![prompt.clone()],
            (None, Some(file)) => prompts::read(file)?,
            (None, None) => return Err(CliError::new("nothing to draw").hint("give --prompt or --prompts-file")),
        };
        let mut pipeline = self.model.load(self.device)?.with_sampler(&self.sampler.options())?;
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
            Some(grid) => format!(" sampled as the schedule's file says ({grid})"),
            None => String::new(),
        };
        let what = if self.prompts_file.is_some() { format!("{} pictures: ", prompts.len()) } else { String::new() };
        writeln!(
            out,
            "{}: {what}{} steps{grid}, {} slots computed, {} reused, {} forecast, peak cache {} bytes",
            self.out.display(),
            schedule.steps(),
            trace.computed,
            trace.reused,
            trace.forecast,
            trace.peak_cache_bytes
        )?;
        for (setting, value) in told.iter().flat_map(|told| &told.made_with) {
            if let Some(here) = self.differs(setting, value) {
                writeln!(out, "the schedule was made with {setting} {value}, and this was drawn with {here}")?;
            }
        }
        Ok(())
    }

    /// Fails now, and not after the run, if pictures cannot be written.
    fn check_out(&self) -> Result<()> {
        let failed = |why: String| CliError::new(format!("cannot write '{}': {why}", self.out.display()));
        if self.prompts_file.is_some() {
            return std::fs::create_dir_all(&self.out).map_err(|e| failed(e.to_string()));
        }
        if self.out.is_dir() {
            return Err(failed("it is a folder".into()).hint("name a file, such as picture.png"));
        }
        let folder = self.out.parent().filter(|folder| !folder.as_os_str().is_empty());
        match folder {
            Some(folder) if !folder.is_dir() => {
                let why = format!("'{}' is no folder", folder.display());
                Err(failed(why).hint("make the folder first, or name another file"))
            }
            _ => Ok(()),
        }
    }

    /// The size to draw at, and the one to bring pictures to where that is another.
    fn size(&self, pipeline: &Pipeline) -> Result<(LatentSize, Option<(usize, usize)>)> {
        if !self.resolution_binning {
            return Ok((pipeline.latent_size(self.height, self.width)?, None));
        }
        let class = pipeline.folder().pipeline();
        if !class.starts_with("PixArt") {
            return Err(CliError::new(format!("--resolution-binning is PixArt's; this is a {class}")));
        }
        // What is asked for is held to the same bounds as without.
        let asked = pipeline.latent_size(self.height, self.width)?;
        let asked = (asked.height * asked.scale, asked.width * asked.scale);
        let (height, width) = binning::nearest(pipeline.native(), asked.0, asked.1)?;
        let size = pipeline.latent_size(u32::try_from(height).ok(), u32::try_from(width).ok())?;
        Ok((size, Some(asked)))
    }

    /// Fails if a batch would take more than --memory.
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

    /// What stands here for a setting that a schedule was made with, where it is another.
    fn differs(&self, setting: &str, value: &str) -> Option<String> {
        let pixels = |side: Option<u32>| side.map_or("the model's own".to_owned(), |side| side.to_string());
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
                        "schedule '{}' has {} steps, --steps asks for {steps}",
                        path.display(),
                        schedule.steps()
                    ))
                    .hint("leave --steps away: a schedule carries its own step count")),
                    _ => Ok((schedule, Some(read))),
                }
            }
        }
    }
}
