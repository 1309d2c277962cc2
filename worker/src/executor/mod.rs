//! The caching executor: runs the denoising steps, computes, reuses or forecasts each slot as the schedule says, keeps
//! each raw output until its last reader, and counts its work.
//!
//! **Invariant:** knows models only as [`BlockModel`] and samplers only as [`Sampler`]. No other module of the worker
//! acts on the decisions of a schedule.

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
use guidance::{Guide, Passes};

pub use guidance::Guidance;
pub use observer::Observer;
pub use profile::{LAGS, ProfileRecorder};
pub use trace::Trace;

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// The run was cancelled.
    #[error("cancelled at step {step}")]
    Cancelled {
        /// The first step that was not run.
        step: u32,
    },
    /// The schedule is for another layout.
    #[error("the schedule is for layout {found}, but the model has {expected}")]
    Layout {
        /// The model's layout.
        expected: String,
        /// The schedule's layout.
        found: String,
    },
    /// Schedule and sampler have different numbers of steps.
    #[error("the schedule has {schedule} steps, but the sampler has {sampler}")]
    Steps {
        /// Steps of the schedule.
        schedule: u32,
        /// Steps of the sampler.
        sampler: usize,
    },
    /// The schedule leaves out passes of classifier-free guidance, and the run has none.
    #[error(
        "the schedule decides which passes of classifier-free guidance run, and this run has none: its guidance scale is 1 \
         or less, or the model's guidance is distilled"
    )]
    Unguided,
    /// The latents hold NaN or infinity.
    #[error("the latents are not finite after step {step} of {steps}")]
    NotFinite {
        /// The last step, counted from 0.
        step: u32,
        /// Number of steps.
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
    /// The prompts, as [`Guidance::pair`] makes them: `[unconditional; conditional]` with classifier-free guidance.
    pub conditioning: &'a Conditioning,
    /// The guidance of the run.
    pub guidance: Guidance,
    /// Which slots to compute, reuse or forecast at each step, and which passes of the guidance run.
    pub schedule: &'a Schedule,
    /// Checked before every step.
    pub cancel: &'a CancelToken,
}

impl Denoise<'_> {
    /// Denoises `noise` `[b, c, h, w]`, reporting to `observer`. Returns the final latents and counts of the run.
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
        if schedule.decides_guidance() && !self.guidance.is_on() {
            return Err(ExecuteError::Unguided);
        }
        let images = noise.dim(0)?;
        let bound = self.model.condition(self.conditioning)?;
        let alone = if schedule.decides_guidance() {
            Some(self.model.condition(&Guidance::conditional(self.conditioning, images)?)?)
        } else {
            None
        };
        let mut guide = Guide::new(self.guidance, schedule);
        let mut cache = Cache::new(schedule);
        let mut trace = Trace::new(images);
        let mut latents = (noise * sampler.initial_scale())?;
        for (step, timestep) in timesteps.into_iter().enumerate() {
            let number = step as u32;
            if self.cancel.is_cancelled() {
                return Err(ExecuteError::Cancelled { step: number });
            }
            let passes = Passes::of(schedule, number);
            let input = self.guidance.input(&latents, passes)?;
            let rows = alone.as_ref().filter(|_| passes == Passes::Conditional).unwrap_or(&bound);
            let state = rows.prepare(&input, timestep)?;
            let output = forward(state, schedule, number, &mut cache, &mut trace, observer)?;
            latents = sampler.step(step, &guide.guide(number, &output)?, &latents)?;
            observer.latents(number, &latents);
        }
        // A non-finite value persists to the end, so one check after the last step is enough.
        if !latents.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return Err(ExecuteError::NotFinite { step: schedule.steps() - 1, steps: schedule.steps() });
        }
        trace.peak_cache_bytes = cache.peak();
        Ok((latents, trace))
    }
}

/// One forward pass of the model under the schedule.
fn forward(
    mut state: Box<dyn State + '_>,
    schedule: &Schedule,
    step: u32,
    cache: &mut Cache,
    trace: &mut Trace,
    observer: &mut dyn Observer,
) -> Result<Tensor, ExecuteError> {
    let layout = schedule.layout();
    let passes = Passes::of(schedule, step);
    for index in 0..schedule.slots() {
        let slot = layout.slot(index);
        let decision = schedule.decision(step, index);
        let output = match decision {
            Decision::Compute => {
                let output = state.run(slot)?;
                cache.store(step, index, &output, passes)?;
                observer.output(step, index, &output)?;
                Some(output)
            }
            _ if !schedule.consumed(step, index) => None,
            Decision::Reuse => Some(cache.newest(index, passes)?),
            Decision::Forecast => Some(cache.forecast(step, index, passes)?),
        };
        trace.count(decision);
        if let Some(output) = output {
            state.combine(slot, &output)?;
        }
        cache.release(step, index);
    }
    Ok(state.finish()?)
}
