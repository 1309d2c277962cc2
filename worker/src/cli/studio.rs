//! The arguments of what draws with one loaded model, `serve` and `batch`, and how it is opened.

use std::path::PathBuf;

use clap::Args;
use evocache_net::log::{LogFormat, LogOptions, Logging};
use tracing_subscriber::EnvFilter;

use super::model::ModelArgs;
use super::sampler::guidance;
use super::{CliError, Result};
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::pipeline::Pipeline;
use crate::files::ModelError;
use crate::serve::plan::Plan;
use crate::serve::{Defaults, StudioError};

/// The model, its device and schedule, and the log.
#[derive(Debug, Clone, Args)]
pub(super) struct StudioArgs {
    /// The model to load.
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Caching schedule as JSON, such as `evocache best --out` writes [default: compute everything]
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Device to run on: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu")]
    pub(super) device: DeviceChoice,
    /// Denoising steps where nothing else says [default: the schedule's, or 20]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) steps: Option<u32>,
    /// Guidance scale where nothing else says [default: the one that the schedule was measured at, or 4.5]
    #[arg(long, value_parser = guidance)]
    pub(super) guidance: Option<f64>,
    /// Log level on stderr: error, warn, info, debug or a tracing filter
    #[arg(long, env = "EVOCACHE_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// Format of the log
    #[arg(long, value_enum, value_name = "FORMAT", env = "EVOCACHE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl StudioArgs {
    /// Starts the log.
    pub(super) fn logging(&self) -> Result<Logging> {
        let filter = EnvFilter::try_new(&self.log).map_err(|e| {
            CliError::new(format!("--log '{}' is invalid: {e}", self.log)).hint("use a level, such as info")
        })?;
        let log = LogOptions { filter, format: self.log_format, ..LogOptions::default() };
        Logging::start(log).map_err(|e| CliError::new(e.to_string()))
    }

    /// The schedule, if there is one.
    pub(super) fn plan(&self) -> Result<Option<Plan>> {
        let Some(path) = &self.schedule else { return Ok(None) };
        let text = crate::files::text::read(path)
            .map_err(|e| CliError::new(format!("cannot read schedule '{}': {e}", path.display())))?;
        let plan = Plan::read(&text);
        plan.map(Some).map_err(|e| CliError::new(format!("'{}' is not a schedule: {e}", path.display())))
    }

    /// Settings of pictures that do not give them.
    pub(super) fn defaults(&self) -> Defaults {
        Defaults { steps: self.steps, guidance: self.guidance }
    }

    /// What loads the model, on the device's thread.
    pub(super) fn load(&self) -> impl FnOnce() -> std::result::Result<Pipeline, ModelError> + Send + use<> {
        let (model, device) = (self.model.clone(), self.device);
        move || model.open(device)
    }
}

impl From<StudioError> for CliError {
    fn from(error: StudioError) -> Self {
        match error {
            StudioError::Model(error) => error.into(),
            error @ StudioError::Layout { .. } => Self::new(error.to_string())
                .hint("use a schedule that was made for a model with the same blocks and components"),
            error @ (StudioError::FirstPicture(_) | StudioError::Thread(_)) => Self::new(error.to_string()),
        }
    }
}
