//! The caching executor: owns the loop over denoising steps, decides per slot whether to compute, reuse or forecast,
//! keeps raw outputs exactly as long as a later step reads them, and counts what it did.
//!
//! **Invariant:** it knows no model, only [`BlockModel`], and no sampler, only [`Sampler`]. Nothing else in the worker
//! knows schedules' decisions.

mod cache;
mod guidance;
mod observer;
mod profile;
mod trace;

use candle_core::Tensor;
use evocache_proto::domain::{Decision, Schedule};

use crate::cancel::CancelToken;
use crate::files::ModelError;
use crate::models::block_model::{BlockModel, Conditioning, State};
use crate::samplers::Sampler;
use cache::Cache;

pub use guidance::Guidance;
pub use observer::Observer;
pub use profile::{LAGS, ProfileRecorder};
pub use trace::Trace;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// Somebody asked for it.
    #[error("cancelled at step {step}")]
    Cancelled {
        /// The step that was not begun.
        step: u32,
    },
    /// The schedule is for another model.
    #[error("the schedule is for a model with layout {found}, this model has {expected}")]
    Layout {
        /// The model's layout.
        expected: String,
        /// The schedule's layout.
        found: String,
    },
    /// The sampler was started for another number of steps.
    #[error("the schedule has {schedule} steps, the sampler {sampler}")]
    Steps {
        /// Steps of the schedule.
        schedule: u32,
        /// Steps of the sampler.
        sampler: usize,
    },
    /// The latents hold NaN or infinity.
    #[error("the latents are not finite after step {step} of {steps}")]
    NotFinite {
        /// The last step.
        step: u32,
        /// All steps.
        steps: u32,
    },
    /// The model or the sampler failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<candle_core::Error> for ExecuteError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

/// One denoising run over a batch.
pub struct Denoise<'a> {
    /// The transformer.
    pub model: &'a dyn BlockModel,
    /// The prompts; with guidance, `[unconditional; conditional]`, as [`Guidance::pair`] makes them.
    pub conditioning: &'a Conditioning,
    /// Classifier-free guidance.
    pub guidance: Guidance,
    /// What to compute when.
    pub schedule: &'a Schedule,
    /// Asked before every step.
    pub cancel: &'a CancelToken,
}

impl Denoise<'_> {
    /// Denoises `noise` `[b, c, h, w]` while `observer` watches.
    pub fn run(
        &self,
        sampler: &mut dyn Sampler,
        noise: &Tensor,
        observer: &mut dyn Observer,
    ) -> Result<(Tensor, Trace), ExecuteError> {
        let (schedule, layout) = (self.schedule, self.model.layout());
        if schedule.layout() != layout {
            return Err(ExecuteError::Layout { expected: layout.to_string(), found: schedule.layout().to_string() });
        }
        let timesteps = sampler.timesteps().to_vec();
        if timesteps.len() != schedule.steps() as usize {
            return Err(ExecuteError::Steps { schedule: schedule.steps(), sampler: timesteps.len() });
        }
        let bound = self.model.condition(self.conditioning)?;
        let mut cache = Cache::new(schedule);
        let mut trace = Trace::new(noise.dim(0)?);
        let mut latents = (noise * sampler.initial_scale())?;
        for (step, timestep) in timesteps.into_iter().enumerate() {
            let number = step as u32;
            if self.cancel.is_cancelled() {
                return Err(ExecuteError::Cancelled { step: number });
            }
            let input = self.guidance.input(&latents)?;
            let state = bound.prepare(&input, timestep)?;
            let output = forward(state, schedule, number, &mut cache, &mut trace, observer)?;
            latents = sampler.step(step, &self.guidance.combine(&output)?, &latents)?;
            observer.latents(number, &latents);
        }
        // One value that is not finite spreads over all of them, so the last step tells.
        if !latents.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Err(ExecuteError::NotFinite { step: schedule.steps() - 1, steps: schedule.steps() });
        }
        trace.peak_cache_bytes = cache.peak();
        Ok((latents, trace))
    }
}

/// One forward pass by the schedule.
fn forward(
    mut state: Box<dyn State + '_>,
    schedule: &Schedule,
    step: u32,
    cache: &mut Cache,
    trace: &mut Trace,
    observer: &mut dyn Observer,
) -> Result<Tensor, ExecuteError> {
    let layout = schedule.layout();
    for index in 0..schedule.slots() {
        let slot = layout.slot(index);
        let decision = schedule.decision(step, index);
        let output = match decision {
            Decision::Compute => {
                let output = state.run(slot)?;
                cache.store(step, index, &output);
                observer.output(step, index, &output)?;
                Some(output)
            }
            _ if !schedule.consumed(step, index) => None,
            Decision::Reuse => Some(cache.newest(index)?.clone()),
            Decision::Forecast => Some(cache.forecast(step, index)?),
        };
        trace.count(decision);
        if let Some(output) = output {
            state.combine(slot, &output)?;
        }
        cache.release(step, index);
    }
    Ok(state.finish()?)
}
