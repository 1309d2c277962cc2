//! The thread that owns the device: it fetches batches, draws them, and hands the pictures over.
//!
//! A batch that fails is drawn again one by one, so that a request harms no other. A panic ends the batch and not the
//! thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use candle_core::Tensor;

use super::desk::{Desk, Job};
use super::embeddings::Embeddings;
use super::meters::Meters;
use super::refusal::Refusal;
use super::run::Run;
use crate::cancel::CancelToken;
use crate::evaluator::clock::Stopwatch;
use crate::evaluator::pipeline::{BatchRequest, Pipeline};
use crate::executor::ExecuteError;
use crate::files::ModelError;
use crate::models::block_model::Prompts;
use crate::picture::Picture;

/// The device, with its model and the encoded texts that it keeps.
pub(super) struct Device {
    desk: Arc<Desk>,
    pipeline: Arc<Pipeline>,
    texts: Embeddings,
    meters: Arc<Meters>,
}

impl Device {
    pub(super) fn new(desk: Arc<Desk>, pipeline: Arc<Pipeline>, texts: Embeddings, meters: Arc<Meters>) -> Self {
        Self { desk, pipeline, texts, meters }
    }

    /// Draws until the desk has nothing more.
    pub(super) fn work(mut self) {
        let desk = self.desk.clone();
        while let Some(jobs) = desk.next() {
            let took = self.draw(&jobs);
            self.meters.batch(jobs.len(), took);
            self.meters.embeddings(self.texts.held());
        }
    }

    /// Draws a batch and answers it. Returns how long that took.
    pub(super) fn draw(&mut self, jobs: &[Job]) -> Duration {
        let Some(run) = jobs.first().map(|job| job.run.clone()) else { return Duration::ZERO };
        let stopwatch = Stopwatch::start();
        let outcome = draw_all(&self.pipeline, &mut self.texts, jobs, &self.meters);
        let took = stopwatch.elapsed();
        self.desk.finished(&run, jobs.len(), outcome.told(took));
        took
    }
}

/// How much of a batch was run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Whole,
    /// The part of its steps, above 0.
    Part(f64),
    /// Its time tells nothing.
    Failed,
}

impl Outcome {
    /// The time of the whole batch, if this one tells it.
    fn told(self, took: Duration) -> Option<Duration> {
        match self {
            Self::Whole => Some(took),
            Self::Part(share) => Duration::try_from_secs_f64(took.as_secs_f64() / share).ok(),
            Self::Failed => None,
        }
    }
}

/// Draws jobs of one kind and answers each of them.
fn draw_all(pipeline: &Pipeline, texts: &mut Embeddings, jobs: &[Job], meters: &Meters) -> Outcome {
    let failed = match guarded(pipeline, texts, jobs, meters) {
        Ok(pictures) => {
            for (job, picture) in jobs.iter().zip(pictures) {
                job.answer(Ok(picture));
            }
            return Outcome::Whole;
        }
        Err(failed) => failed,
    };
    match failed {
        Failed::Cancelled { step, steps } => {
            for job in jobs {
                // A client that has gone reads neither.
                let (code, message) = if job.is_cancelled() {
                    ("stopping", "the server is stopping")
                } else {
                    ("deadline_passed", "the deadline passed before the picture was ready")
                };
                job.answer(Err(Refusal::busy(code, message, Duration::from_secs(1))));
            }
            meters.cut_short(jobs.iter().filter(|job| job.is_cancelled()).count());
            if step == 0 { Outcome::Failed } else { Outcome::Part(f64::from(step) / f64::from(steps)) }
        }
        Failed::Refused(_) if jobs.len() > 1 => {
            for job in jobs {
                draw_all(pipeline, texts, std::slice::from_ref(job), meters);
            }
            Outcome::Failed
        }
        Failed::Refused(refusal) => {
            jobs.iter().for_each(|job| job.answer(Err(refusal.clone())));
            Outcome::Failed
        }
    }
}

enum Failed {
    Cancelled { step: u32, steps: u32 },
    Refused(Refusal),
}

fn guarded(pipeline: &Pipeline, texts: &mut Embeddings, jobs: &[Job], meters: &Meters) -> Result<Vec<Picture>, Failed> {
    // Unwind-safe: a text is kept only when it is whole, and nothing else outlives the call.
    let drawn = catch_unwind(AssertUnwindSafe(|| draw(pipeline, texts, jobs, meters)));
    drawn.unwrap_or_else(|_| {
        tracing::error!("the model panicked");
        Err(Failed::Refused(Refusal::failed("the model panicked")))
    })
}

impl Failed {
    /// Of texts.
    fn to_encode(error: ModelError) -> Self {
        match error {
            // Not logged and not repeated: it may have the prompt in it.
            ModelError::Input(_) => {
                let message = "the model cannot take this prompt or negative prompt";
                Self::Refused(Refusal::invalid("prompt", "does_not_fit_the_model", message))
            }
            other => Self::to_run(ExecuteError::Model(other), 1),
        }
    }

    /// Of the model.
    fn to_run(error: ExecuteError, steps: u32) -> Self {
        let message = match error {
            ExecuteError::Cancelled { step } => return Self::Cancelled { step, steps },
            ExecuteError::Model(error) if error.is_out_of_memory() => {
                tracing::error!(%error, "out of memory");
                "the device ran out of memory; ask for a smaller picture"
            }
            ExecuteError::NotFinite { .. } => {
                "the picture has values that are not finite; use another seed or another guidance scale"
            }
            error => {
                tracing::error!(%error, "the model failed");
                "the model failed"
            }
        };
        Self::Refused(Refusal::failed(message))
    }
}

fn draw(pipeline: &Pipeline, texts: &mut Embeddings, jobs: &[Job], meters: &Meters) -> Result<Vec<Picture>, Failed> {
    let Some(run) = jobs.first().map(|job| &*job.run) else { return Ok(Vec::new()) };
    let (prompts, negative) = encoded(pipeline, texts, jobs, run, meters).map_err(Failed::to_encode)?;
    let seeds: Vec<u64> = jobs.iter().map(|job| job.seed).collect();
    let request = BatchRequest {
        prompts,
        negative,
        size: run.size,
        seeds: &seeds,
        guidance: run.guidance,
        schedule: &run.schedule,
    };
    let stop = CancelToken::new();
    let mut look = |_: u32, _: &Tensor| {
        if jobs.iter().all(Job::is_over) {
            stop.cancel();
        }
    };
    let to_run = |error| Failed::to_run(error, run.schedule.steps());
    let generated = pipeline.generate(&request, &stop, &mut look).map_err(to_run)?;
    let pictures = (0..jobs.len()).map(|row| Picture::from_batch(&generated.pictures, row));
    pictures.collect::<Result<_, _>>().map_err(|error| to_run(ExecuteError::Model(error)))
}

/// The encoded prompts and negative prompts, one row per job.
fn encoded(
    pipeline: &Pipeline,
    kept: &mut Embeddings,
    jobs: &[Job],
    run: &Run,
    meters: &Meters,
) -> Result<(Prompts, Prompts), ModelError> {
    let mut texts: Vec<&str> = jobs.iter().map(|job| &*job.prompt).collect();
    if run.guidance.is_on() {
        texts.extend(jobs.iter().map(|job| &*job.negative));
    }
    let mut found: Vec<Option<Prompts>> = texts.iter().map(|text| kept.get(text)).collect();
    let mut missing: Vec<&str> = Vec::new();
    for (text, found) in texts.iter().zip(&found) {
        if found.is_none() && !missing.contains(text) {
            missing.push(text);
        }
    }
    meters.texts(texts.len(), missing.len());
    if !missing.is_empty() {
        let fresh = pipeline.encode(&missing)?;
        for (row, text) in missing.iter().enumerate() {
            let prompts = kept.put(text, &fresh, row)?;
            for (_, place) in texts.iter().zip(&mut found).filter(|(other, _)| *other == text) {
                *place = Some(prompts.clone());
            }
        }
    }
    let rows: Vec<Prompts> = found.into_iter().flatten().collect();
    let join = |rows: &[Prompts]| -> Result<Prompts, ModelError> {
        let mut rows = rows.iter();
        let Some(first) = rows.next() else { return Ok(Prompts::default()) };
        rows.try_fold(first.clone(), |joined, row| Ok(joined.then(row)?))
    };
    let (prompts, negative) = rows.split_at(jobs.len().min(rows.len()));
    let prompts = join(prompts)?;
    let negative = if negative.is_empty() { prompts.clone() } else { join(negative)? };
    Ok((prompts, negative))
}
