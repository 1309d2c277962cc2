//! Samplers: from noise to latents, step by step. They know timesteps and tensors, nothing of models or schedules.

mod betas;
pub mod dpm_solver;
pub mod noise;

use candle_core::Tensor;

use crate::files::config::Config;
use crate::files::error::Result;

/// A sampler for one run.
pub trait Sampler: Send {
    /// The timestep of the training schedule for each step.
    fn timesteps(&self) -> &[f64];

    /// Deviation of the initial noise.
    fn initial_scale(&self) -> f64;

    /// The latents after step `index`, which must be called in order from 0. `output` is the model's, with guidance
    /// applied; both are `[b, c, h, w]`.
    fn step(&mut self, index: usize, output: &Tensor, latents: &Tensor) -> Result<Tensor>;
}

/// Starts samplers of one configuration.
#[derive(Debug, Clone)]
pub struct SamplerFactory {
    solver: dpm_solver::DpmSolverConfig,
}

impl SamplerFactory {
    /// Reads a `scheduler_config.json`.
    pub fn read(config: &Config) -> Result<Self> {
        config.choice("_class_name", "", &["DPMSolverMultistepScheduler"])?;
        Ok(Self { solver: dpm_solver::DpmSolverConfig::read(config)? })
    }

    /// A sampler for a run of `steps` steps.
    pub fn start(&self, steps: u32) -> Result<Box<dyn Sampler>> {
        Ok(Box::new(dpm_solver::DpmSolver::new(&self.solver, steps)?))
    }
}
