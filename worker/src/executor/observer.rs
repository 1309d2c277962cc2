//! Who watches a run from outside. Absent on purpose: any way to change what the run does.

use candle_core::Tensor;

use crate::files::ModelError;

/// Watches a run; looks at nothing unless told to. A closure watches the latents.
pub trait Observer {
    /// Sees the latents after a step.
    fn latents(&mut self, _step: u32, _latents: &Tensor) {}

    /// Sees a slot's raw output where it is computed: before gate and residual, what the cache would store.
    fn output(&mut self, _step: u32, _slot: usize, _output: &Tensor) -> Result<(), ModelError> {
        Ok(())
    }
}

impl<F: FnMut(u32, &Tensor)> Observer for F {
    fn latents(&mut self, step: u32, latents: &Tensor) {
        self(step, latents);
    }
}
