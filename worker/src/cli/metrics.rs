//! Which metrics to measure: the same arguments for every verb that measures.

use std::path::PathBuf;

use clap::Args;

use crate::metrics::choice::MetricChoice;

/// The metrics.
#[derive(Debug, Clone, Default, Args)]
pub struct MetricArgs {
    /// CLIP folder to score pictures with [default: folder 'clip' in the model's, if there is one]
    #[arg(long, value_name = "DIR")]
    pub clip: Option<PathBuf>,
    /// A metric to measure beside CLIP score and PSNR, such as ssim or lpips=FILE; may be repeated. Workers of one search
    /// must measure the same
    #[arg(long = "metric", value_name = "NAME[=PATH]")]
    pub metrics: Vec<MetricChoice>,
}
