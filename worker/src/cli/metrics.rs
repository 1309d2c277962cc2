//! The metric arguments.

use std::path::PathBuf;

use clap::Args;

use crate::metrics::choice::MetricChoice;

/// The metrics to measure.
#[derive(Debug, Clone, Default, Args)]
pub struct MetricArgs {
    /// CLIP folder for the CLIP score [default: folder 'clip' in the model folder, if it exists]
    #[arg(long, value_name = "DIR")]
    pub clip: Option<PathBuf>,
    /// Metric to measure besides CLIP score and PSNR, such as ssim or lpips=FILE; may be repeated. All workers of a
    /// search must measure the same metrics
    #[arg(long = "metric", value_name = "NAME[=PATH]")]
    pub metrics: Vec<MetricChoice>,
}
