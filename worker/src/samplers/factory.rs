//! Starts the sampler that a model folder names, with the settings of its config.

use evocache_proto::domain::Grid;

use super::sampler::Sampler;
use super::{ddim, dpm_solver, flow_match};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};

/// Settings that override the config.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplerOptions {
    /// DPM-Solver++: order of the solver, the number of model outputs that a step uses, 1 to 3.
    pub order: Option<usize>,
    /// DPM-Solver++: the training timestep of each step, noisiest first.
    pub timesteps: Option<Vec<u32>>,
    /// Flow matching: the sigma of each step before it is shifted, noisiest first, in (0, 1].
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
    /// Number of steps that `timesteps` or `sigmas` imply.
    pub fn steps(&self) -> Option<usize> {
        self.timesteps.as_ref().map(Vec::len).or(self.sigmas.as_ref().map(Vec::len))
    }
}

/// Starts samplers with the settings of one config.
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
    /// Reads a `scheduler_config.json` for `class`, the class in `model_index.json`, whatever class the file names.
    /// `sigmas` are the pipeline's for flow matching.
    pub fn read(config: &Config, class: &str, sigmas: flow_match::FlowSigmas) -> Result<Self> {
        match class {
            "DPMSolverMultistepScheduler" => Ok(Self::DpmSolver(dpm_solver::DpmSolverConfig::read(config)?)),
            "DDIMScheduler" => Ok(Self::Ddim(ddim::DdimConfig::read(config)?)),
            "FlowMatchEulerDiscreteScheduler" => {
                Ok(Self::FlowMatch(flow_match::FlowMatchConfig::read(config, sigmas)?))
            }
            other => Err(ModelError::Input(format!("sampler '{other}' is not supported"))),
        }
    }

    /// Overrides settings. Fails if this sampler does not have one of them.
    pub fn with(self, options: &SamplerOptions) -> Result<Self> {
        let SamplerOptions { order, timesteps, sigmas } = options;
        let refused = |what: &str, name: &str, instead: &str| {
            Err(ModelError::Input(format!("{name} takes no {what}: {instead}")))
        };
        let dpm = "DPMSolverMultistepScheduler does";
        match self {
            Self::DpmSolver(_) if sigmas.is_some() => {
                refused("sigmas", "DPMSolverMultistepScheduler", "give it timesteps")
            }
            Self::DpmSolver(config) => Ok(Self::DpmSolver(config.with(*order, timesteps.clone())?)),
            _ if order.is_some() => refused("solver order", self.class(), dpm),
            _ if timesteps.is_some() => refused("timesteps", self.class(), dpm),
            Self::FlowMatch(config) => Ok(Self::FlowMatch(config.with(sigmas.clone())?)),
            Self::Ddim(_) if sigmas.is_some() => {
                refused("sigmas", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler does")
            }
            Self::Ddim(config) => Ok(Self::Ddim(config)),
        }
    }

    /// The diffusers class of the sampler.
    pub fn class(&self) -> &'static str {
        match self {
            Self::DpmSolver(_) => "DPMSolverMultistepScheduler",
            Self::Ddim(_) => "DDIMScheduler",
            Self::FlowMatch(_) => "FlowMatchEulerDiscreteScheduler",
        }
    }

    /// Starts a run of `steps` steps over images of `image_tokens` tokens, which dynamic shifts depend on.
    pub fn start(&self, steps: u32, image_tokens: usize) -> Result<Box<dyn Sampler>> {
        Ok(match self {
            Self::DpmSolver(config) => Box::new(dpm_solver::DpmSolver::new(config, steps)?),
            Self::Ddim(config) => Box::new(ddim::Ddim::new(config, steps)?),
            Self::FlowMatch(config) => Box::new(flow_match::FlowMatch::new(config, steps, image_tokens)?),
        })
    }
}
