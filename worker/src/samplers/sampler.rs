//! What every sampler does: the trait that a denoising loop uses.

use candle_core::Tensor;

use crate::files::error::Result;

/// The sampler of one run.
pub trait Sampler: Send {
    /// The timestep of the training schedule for each step.
    fn timesteps(&self) -> &[f64];

    /// Standard deviation of the initial noise.
    fn initial_scale(&self) -> f64;

    /// The latents after step `index`; steps must be taken in order from 0. `output` is the model's output with
    /// guidance applied; `output` and `latents` are `[b, c, h, w]`.
    fn step(&mut self, index: usize, output: &Tensor, latents: &Tensor) -> Result<Tensor>;
}
