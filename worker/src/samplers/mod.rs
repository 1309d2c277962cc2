//! Samplers, which turn noise into latents step by step.
//!
//! **Invariant:** samplers know timesteps and tensors, nothing of models or schedules.

mod betas;
pub mod ddim;
pub mod dpm_solver;
mod factory;
pub mod flow_match;
pub mod noise;
mod sampler;

pub use factory::{SamplerFactory, SamplerOptions};
pub use sampler::Sampler;
