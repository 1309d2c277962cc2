//! `batch`: a picture for every prompt of a file, across interruptions.

mod folder;
mod prompts;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use evocache_net::signals::Signals;
use evocache_proto::text::Lines;

use super::studio::StudioArgs;
use super::{CliError, Result, report};
use crate::evaluator::clock::Stopwatch;
use crate::serve::{Series, Sketch, StudioOptions};
use folder::{Folder, Settings};

/// How often the log tells how far it is.
const EVERY: Duration = Duration::from_secs(10);
/// Memory for encoded texts.
const TEXTS: u64 = 256 << 20;

/// Draw a picture for every prompt of a file
///
/// Writes 000000.png and so on, by the number of the prompt, and a line about each into results.jsonl. After an
/// interruption, the same command goes on where it was; other settings need another folder. A picture that cannot be
/// drawn is told at the end, and tried again by the next run.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  evocache-worker batch prompts.txt --model worker/models/emoji --guidance 3 --out pictures
  evocache-worker batch prompts.jsonl --model worker/models/emoji --schedule best.json --out pictures

A line of prompts.jsonl is an object with 'prompt' and, if they differ, 'negative_prompt', 'seed', 'size',
'num_inference_steps' and 'guidance_scale', as in a request to `serve`.")]
pub struct BatchArgs {
    /// Prompts: a text file with one per line, or a .jsonl file with one object per line
    #[arg(value_name = "PROMPTS")]
    prompts: PathBuf,
    /// Folder for the pictures
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The model and its schedule.
    #[command(flatten)]
    studio: StudioArgs,
    /// Negative prompt of prompts without one
    #[arg(long, default_value = "")]
    negative_prompt: String,
    /// Seed of the first prompt; the Nth without one of its own uses seed + N - 1
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Pictures per batch
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
}

impl BatchArgs {
    /// Runs the subcommand. Blocks.
    pub fn run(&self) -> ExitCode {
        match self.draw() {
            Ok(code) => code,
            Err(error) => {
                report(&error);
                ExitCode::FAILURE
            }
        }
    }

    fn draw(&self) -> Result<ExitCode> {
        let _logging = self.studio.logging()?;
        let plan = self.studio.plan()?;
        let (sketches, digest) = prompts::read(&self.prompts, self.seed, &self.negative_prompt)?;
        let folder = Folder::open(
            &self.out,
            &Settings {
                model: self.studio.model.model.display().to_string(),
                prompts: digest,
                schedule: plan.as_ref().map_or_else(|| "none".to_owned(), |plan| plan.schedule.id().to_string()),
                steps: self.studio.steps,
                guidance: self.studio.guidance,
                seed: self.seed,
                negative_prompt: self.negative_prompt.clone(),
            },
        )?;
        let options = StudioOptions {
            name: None,
            plan,
            defaults: self.studio.defaults(),
            device: self.studio.device,
            memory: self.studio.model.memory,
            batch: self.batch.into(),
            gather: Duration::ZERO,
            // One batch is drawn while the next one waits.
            queue: 2 * usize::from(self.batch),
            each: 2 * usize::from(self.batch),
            embeddings: TEXTS,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| CliError::new(format!("cannot start the async runtime: {e}")))?;
        runtime.block_on(self.all(options, sketches, folder))
    }

    async fn all(&self, options: StudioOptions, sketches: Vec<Sketch>, mut folder: Folder) -> Result<ExitCode> {
        let failed = |e| CliError::new(format!("cannot install signal handlers: {e}"));
        let mut signals = Signals::listen().map_err(failed)?;
        let total = sketches.len();
        let left: Vec<Sketch> = sketches.into_iter().filter(|sketch| !folder.has(sketch.number)).collect();
        let before = total - left.len();
        if before > 0 {
            tracing::info!("{before} of {total} pictures are there already");
        }
        let mut problems = Vec::new();
        let mut interrupted = None;
        if !left.is_empty() {
            let mut series = Series::open(options, self.studio.load()).await?;
            let since = Stopwatch::start();
            let (mut told, mut drawn) = (Duration::ZERO, 0usize);
            let count = left.len();
            let mut left = left.into_iter().peekable();
            loop {
                while series.has_room()
                    && let Some(sketch) = left.next()
                {
                    series.begin(sketch);
                }
                let finished = tokio::select! {
                    finished = series.next() => finished,
                    signal = signals.next() => {
                        interrupted = Some(signal);
                        break;
                    }
                };
                let Some(finished) = finished else { break };
                drawn += 1;
                match finished.picture {
                    Ok((picture, schedule)) => folder.add(finished.number, &picture, &schedule)?,
                    Err(problem) => problems.push((finished.number, problem)),
                }
                if since.elapsed() >= told + EVERY {
                    told = since.elapsed();
                    let rate = drawn as f64 / told.as_secs_f64();
                    let rest = (count - drawn) as f64 / rate;
                    tracing::info!("{} of {total} pictures, {rate:.2} a second, {rest:.0} s left", before + drawn);
                }
            }
            series.stop().await;
        }
        self.tell(total, folder.count(), &problems, interrupted)
    }

    #[expect(clippy::disallowed_methods, reason = "`Lines` escapes control characters")]
    fn tell(
        &self,
        total: usize,
        there: usize,
        problems: &[(usize, String)],
        interrupted: Option<u8>,
    ) -> Result<ExitCode> {
        let mut out = Lines(std::io::stdout().lock());
        writeln!(out, "{}: {there} of {total} pictures", self.out.display())?;
        if let Some(signal) = interrupted {
            tracing::info!("interrupted; the same command goes on");
            return Ok(ExitCode::from(128 + signal));
        }
        let Some((number, problem)) = problems.first() else { return Ok(ExitCode::SUCCESS) };
        let others = problems.len() - 1;
        let error = CliError::new(format!("picture {number:06} cannot be drawn ({problem}), nor {others} others"));
        Err(error.hint("the same command tries them again"))
    }
}
