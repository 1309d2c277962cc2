//! Samplers: from noise to latents, step by step. They know timesteps and tensors, nothing of models or schedules.

mod betas;
pub mod ddim;
pub mod dpm_solver;
pub mod flow_match;
pub mod noise;

use candle_core::Tensor;
use evocache_proto::domain::Grid;

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

/// What a caller says instead of the config.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplerOptions {
    /// DPM-Solver++: how many outputs of the model a step looks at, 1 to 3.
    pub order: Option<usize>,
    /// DPM-Solver++: the training timestep of each step, noisiest first.
    pub timesteps: Option<Vec<u32>>,
    /// Flow matching: the noise level of each step before the config shifts it, noisiest first, in (0, 1].
    pub sigmas: Option<Vec<f64>>,
}

impl From<&Grid> for SamplerOptions {
    fn from(grid: &Grid) -> Self {
        let timesteps = Some(grid.timesteps.clone()).filter(|timesteps| !timesteps.is_empty());
        let sigmas = Some(grid.sigmas.clone()).filter(|sigmas| !sigmas.is_empty());
        Self { order: grid.solver_order.map(|order| order as usize), timesteps, sigmas }
    }
}

impl SamplerOptions {
    /// How many steps a run has, where that is said here.
    pub fn steps(&self) -> Option<usize> {
        self.timesteps.as_ref().map(Vec::len).or(self.sigmas.as_ref().map(Vec::len))
    }
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

    /// The same with other settings; those that this sampler does not have are refused.
    pub fn with(self, options: &SamplerOptions) -> Result<Self> {
        let SamplerOptions { order, timesteps, sigmas } = options;
        let refused =
            |what: &str, name: &str, instead: &str| Err(ModelError::Input(format!("{name} has no {what}: {instead}")));
        let dpm = "DPMSolverMultistepScheduler has";
        match self {
            Self::DpmSolver(_) if sigmas.is_some() => {
                refused("sigmas to be told", "DPMSolverMultistepScheduler", "tell it timesteps")
            }
            Self::DpmSolver(config) => Ok(Self::DpmSolver(config.with(*order, timesteps.clone())?)),
            _ if order.is_some() => refused("order to choose", self.class(), &format!("{dpm} one")),
            _ if timesteps.is_some() => refused("timesteps to be told", self.class(), &format!("{dpm} them")),
            Self::FlowMatch(config) => Ok(Self::FlowMatch(config.with(sigmas.clone())?)),
            Self::Ddim(_) if sigmas.is_some() => {
                refused("sigmas to be told", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler has them")
            }
            Self::Ddim(config) => Ok(Self::Ddim(config)),
        }
    }

    /// The class, as diffusers names it.
    pub fn class(&self) -> &'static str {
        match self {
            Self::DpmSolver(_) => "DPMSolverMultistepScheduler",
            Self::Ddim(_) => "DDIMScheduler",
            Self::FlowMatch(_) => "FlowMatchEulerDiscreteScheduler",
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
