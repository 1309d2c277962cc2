//! Observation of a run.
//!
//! **Invariant:** an observer cannot change the run, but an error from it ends the run.

use candle_core::Tensor;

use crate::files::ModelError;

/// Observes a run. The default methods do nothing; a closure receives the latents of each step.
pub trait Observer {
    /// Receives the latents after a step.
    fn latents(&mut self, _step: u32, _latents: &Tensor) {}

    /// Receives the raw output of a computed slot, before gate and residual: the tensor that the cache would store.
    /// An error ends the run.
    fn output(&mut self, _step: u32, _slot: usize, _output: &Tensor) -> Result<(), ModelError> {
        Ok(())
    }
}

impl<F: FnMut(u32, &Tensor)> Observer for F {
    fn latents(&mut self, step: u32, latents: &Tensor) {
        self(step, latents);
    }
}
