//! Quality metrics over generated pictures, one file each.
//!
//! **Invariant:** metrics know nothing of schedules.

mod baseline;
mod bicubic;
pub mod choice;
pub mod clip_score;
pub mod cmmd;
#[cfg(feature = "fid")]
pub mod fid;
#[cfg(feature = "fid")]
mod frechet;
pub mod hps_v2;
pub mod image_reward;
pub mod lpips;
pub mod pick_score;
mod preprocess;
pub mod psnr;
pub mod ssim;

use std::path::Path;

use candle_core::Tensor;
use evocache_proto::domain::MetricDeclaration;

use crate::files::config::Config;
use crate::files::error::{ModelError, Result};

/// What a metric compares a picture with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// The prompt.
    Text,
    /// The picture of the uncached run.
    Uncached,
}

/// A metric with a value for each picture.
pub trait Metric: Send {
    /// Name, direction, unit and a one-line description.
    fn declaration(&self) -> MetricDeclaration;

    /// What the metric compares a picture with, and so which argument of [`prepare`](Self::prepare) it uses.
    fn against(&self) -> Against;

    /// Sets the prompts of a calibration and the pictures of its uncached run, batches `[b, 3, h, w]` in [0, 1].
    fn prepare(&mut self, texts: &[&str], baseline: &[Tensor]) -> Result<()>;

    /// One value per picture of a batch `[b, 3, h, w]` in [0, 1] that starts at prompt `first`.
    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>>;
}

/// One of two compared sets of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// The pictures that are scored.
    Scored,
    /// The pictures that they are compared with.
    Reference,
}

/// A metric that compares a set of pictures with another.
pub trait SetMetric: Send {
    /// Name, direction, unit and a one-line description.
    fn declaration(&self) -> MetricDeclaration;

    /// Adds pictures `[b, 3, h, w]` in [0, 1] to a set; sizes may differ between batches.
    fn add(&mut self, set: Set, pictures: &Tensor) -> Result<()>;

    /// The distance between the sets as added so far.
    fn value(&self) -> Result<f64>;
}

/// Reads a config in the folder of a metric; `hint` says how to get such a folder.
fn read_config(folder: &Path, name: &str, hint: &str) -> Result<Config> {
    let path = folder.join(name);
    if path.is_file() { Config::read(&path) } else { Err(ModelError::Missing { path, hint: hint.into() }) }
}
