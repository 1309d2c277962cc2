//! Samplers: from noise to latents, step by step. They know timesteps and tensors, nothing of models or schedules.

mod betas;
pub mod ddim;
pub mod dpm_solver;
pub mod flow_match;
pub mod noise;

use candle_core::Tensor;

use crate::files::config::Config;
use crate::files::error::{ModelError, Result};

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
pub enum SamplerFactory {
    /// DPM-Solver++.
    DpmSolver(dpm_solver::DpmSolverConfig),
    /// DDIM.
    Ddim(ddim::DdimConfig),
    /// Euler's method for flow matching.
    FlowMatch(flow_match::FlowMatchConfig),
}

impl SamplerFactory {
    /// Reads a `scheduler_config.json` for a sampler of this class, whatever class the file names: `model_index.json`
    /// decides. `sigmas`: those that flow matching begins with under this pipeline.
    pub fn read(config: &Config, class: &str, sigmas: flow_match::FlowSigmas) -> Result<Self> {
        match class {
            "DPMSolverMultistepScheduler" => Ok(Self::DpmSolver(dpm_solver::DpmSolverConfig::read(config)?)),
            "DDIMScheduler" => Ok(Self::Ddim(ddim::DdimConfig::read(config)?)),
            "FlowMatchEulerDiscreteScheduler" => {
                Ok(Self::FlowMatch(flow_match::FlowMatchConfig::read(config, sigmas)?))
            }
            other => Err(ModelError::Input(format!("there is no sampler '{other}'"))),
        }
    }

    /// A sampler for a run of `steps` steps over pictures of `image_tokens` tokens, which some shifts depend on.
    pub fn start(&self, steps: u32, image_tokens: usize) -> Result<Box<dyn Sampler>> {
        Ok(match self {
            Self::DpmSolver(config) => Box::new(dpm_solver::DpmSolver::new(config, steps)?),
            Self::Ddim(config) => Box::new(ddim::Ddim::new(config, steps)?),
            Self::FlowMatch(config) => Box::new(flow_match::FlowMatch::new(config, steps, image_tokens)?),
        })
    }
}
