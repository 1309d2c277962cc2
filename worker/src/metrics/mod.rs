//! Quality metrics over generated pictures. One file each; none knows schedules.

mod baseline;
mod bicubic;
pub mod choice;
pub mod clip_score;
pub mod cmmd;
pub mod fid;
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

/// What a metric holds a picture against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// Its prompt.
    Text,
    /// The picture of the uncached run.
    Uncached,
}

/// A quality metric.
pub trait Metric: Send {
    /// Name, direction, unit, and one line for people.
    fn declaration(&self) -> MetricDeclaration;

    /// What [`prepare`](Self::prepare) must be given.
    fn against(&self) -> Against;

    /// Takes the texts of a calibration and the pictures of its uncached run, in batches `[b, 3, h, w]` in [0, 1].
    fn prepare(&mut self, texts: &[&str], baseline: &[Tensor]) -> Result<()>;

    /// One value per picture of a batch `[b, 3, h, w]` in [0, 1]; the first is that of prompt `first`.
    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>>;
}

/// One of the two sets of pictures that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// The pictures that are scored.
    Scored,
    /// Those that they are held against.
    Reference,
}

/// A metric of a whole set of pictures against another.
pub trait SetMetric: Send {
    /// Name, direction, unit, and one line for people.
    fn declaration(&self) -> MetricDeclaration;

    /// Adds pictures `[b, 3, h, w]` in [0, 1] to a set; their size may differ from batch to batch.
    fn add(&mut self, set: Set, pictures: &Tensor) -> Result<()>;

    /// The distance of what was added so far.
    fn value(&self) -> Result<f64>;
}

/// Reads a config in a metric's folder; `hint` says how to come by a folder that has it.
fn read_config(folder: &Path, name: &str, hint: &str) -> Result<Config> {
    let path = folder.join(name);
    if path.is_file() { Config::read(&path) } else { Err(ModelError::Missing { path, hint: hint.into() }) }
}
