//! The state that all candidates of a calibration share, and the runs over its prompts.
//!
//! Does not order the runs of an evaluation or use their latencies and pictures: that is `evaluation.rs`.

use std::num::NonZeroU32;
use std::time::Duration;

use candle_core::Device;
use evocache_proto::domain::{Calibration, CostModel, Profile, Schedule};

use super::api::{CancelToken, EvaluateError};
use super::clock::Stopwatch;
use super::memory::Memory;
use super::pipeline::{BatchRequest, Generated, Pipeline};
use crate::executor::{ExecuteError, Guidance, ProfileRecorder};
use crate::models::block_model::{LatentSize, Prompts};

/// Most prompts that a profile averages over: each costs one more uncached run, and a profile only guides the search.
const PROFILE_PROMPTS: usize = 8;

/// A calibration with its encoded texts and the scores of its uncached run.
pub(super) struct Prepared {
    pub(super) calibration: Calibration,
    pub(super) texts: Prompts,
    pub(super) negative: Prompts,
    pub(super) size: LatentSize,
    pub(super) guidance: Guidance,
    pub(super) cost: CostModel,
    pub(super) memory: Memory,
    pub(super) baseline: Schedule,
    /// The uncached run's values, per metric and prompt.
    pub(super) baseline_values: Vec<Vec<f64>>,
}

impl Prepared {
    /// How many prompts to evaluate if a task asks for the first `wanted`; `None` means all.
    pub(super) fn prompts(&self, wanted: Option<NonZeroU32>) -> Result<usize, EvaluateError> {
        let found = self.calibration.prompts.len();
        match wanted.map(NonZeroU32::get) {
            None => Ok(found),
            Some(wanted) if wanted as usize <= found => Ok(wanted as usize),
            Some(wanted) => Err(EvaluateError::Prompts { wanted, found }),
        }
    }

    /// Generates a batch `(first, count)` of prompts. Returns the pictures on the CPU and the time for the whole batch.
    pub(super) fn generate(
        &self,
        pipeline: &Pipeline,
        schedule: &Schedule,
        batch: (usize, usize),
        cancel: &CancelToken,
    ) -> Result<(Generated, Duration), EvaluateError> {
        let seeds = self.seeds(batch);
        let request = self.request(schedule, batch, &seeds)?;
        let stopwatch = Stopwatch::start();
        let generated = pipeline.generate(&request, cancel, &mut |_, _| ()).map_err(|e| self.failed(e, batch))?;
        // The copy to the CPU waits until the device is done, so it is part of the time.
        let pictures = generated.pictures.to_device(&Device::Cpu)?;
        let took = stopwatch.elapsed();
        Ok((Generated { pictures, ..generated }, took))
    }

    /// The calibration profile of the uncached run of `steps` steps, over at most [`PROFILE_PROMPTS`] of the first
    /// `prompts` prompts. `None` for a single step. Images run one at a time, so that each change belongs to one image
    /// and the outputs of one image only are in memory.
    pub(super) fn profile(
        &self,
        pipeline: &Pipeline,
        steps: u32,
        prompts: usize,
        cancel: &CancelToken,
    ) -> Result<Option<Profile>, EvaluateError> {
        let Some(mut recorder) = ProfileRecorder::new(steps, pipeline.layout().slots()) else { return Ok(None) };
        let uncached = Schedule::all_compute(pipeline.layout().clone(), steps)
            .map_err(|error| EvaluateError::Schedule(error.to_string()))?;
        for image in 0..prompts.min(PROFILE_PROMPTS) {
            let batch = (image, 1);
            let seeds = self.seeds(batch);
            let request = self.request(&uncached, batch, &seeds)?;
            pipeline.denoise(&request, cancel, &mut recorder).map_err(|e| self.failed(e, batch))?;
        }
        recorder.profile().map(Some).map_err(|error| EvaluateError::Failed {
            message: format!("cannot profile the uncached run: {error}"),
            hint: None,
            retryable: false,
        })
    }

    /// Fails unless the values of the prompts from `first` on are all finite.
    pub(super) fn all_finite(&self, what: &str, first: usize, values: &[f64]) -> Result<(), EvaluateError> {
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(i) => Err(self.not_finite(what, first + i)),
        }
    }

    fn not_finite(&self, what: &str, prompt: usize) -> EvaluateError {
        EvaluateError::NotFinite { what: what.into(), prompt, text: self.calibration.prompts[prompt].text.clone() }
    }

    fn seeds(&self, (first, count): (usize, usize)) -> Vec<u64> {
        self.calibration.prompts[first..first + count].iter().map(|prompt| prompt.seed).collect()
    }

    fn request<'a>(
        &self,
        schedule: &'a Schedule,
        (first, count): (usize, usize),
        seeds: &'a [u64],
    ) -> Result<BatchRequest<'a>, EvaluateError> {
        Ok(BatchRequest {
            prompts: self.texts.batch(first, count)?,
            negative: self.negative.repeated(0, count)?,
            size: self.size,
            seeds,
            guidance: self.guidance,
            schedule,
        })
    }

    fn failed(&self, error: ExecuteError, (first, _): (usize, usize)) -> EvaluateError {
        match error {
            ExecuteError::Cancelled { .. } => EvaluateError::Cancelled,
            ExecuteError::Layout { .. } | ExecuteError::Steps { .. } | ExecuteError::Unguided => {
                EvaluateError::Schedule(error.to_string())
            }
            ExecuteError::NotFinite { .. } => self.not_finite("a latent", first),
            ExecuteError::Model(error) => error.into(),
        }
    }
}

/// Latency per image of a batch `(first, count)`.
pub(super) fn microseconds_per_image((_, count): (usize, usize), took: Duration) -> f64 {
    took.as_secs_f64() * 1e6 / count as f64
}
