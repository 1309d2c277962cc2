//! The pictures of the uncached run, for metrics that compare against them.

use candle_core::{Device, Tensor};

use crate::files::error::{ModelError, Result};

/// The pictures of the uncached run, `[prompts, 3, h, w]`; `None` until [`take`](Self::take).
#[derive(Debug, Default)]
pub(super) struct Baseline(Option<Tensor>);

impl Baseline {
    /// Stores the pictures, given in batches `[b, 3, h, w]`.
    pub(super) fn take(&mut self, batches: &[Tensor]) -> Result<()> {
        self.0 = Some(Tensor::cat(batches, 0)?.to_device(&Device::Cpu)?);
        Ok(())
    }

    /// The uncached pictures for a batch that starts at prompt `first`, on the CPU. Fails if the sizes differ.
    pub(super) fn of(&self, metric: &str, first: usize, pictures: &Tensor) -> Result<Tensor> {
        let Some(all) = &self.0 else {
            return Err(ModelError::Input(format!("{metric} was not given the uncached pictures")));
        };
        let found = all.narrow(0, first, pictures.dim(0)?)?;
        if found.dims() != pictures.dims() {
            return Err(ModelError::Input(format!(
                "{metric} cannot compare pictures {:?} with uncached ones {:?}: both must have the same size",
                pictures.dims(),
                found.dims()
            )));
        }
        Ok(found)
    }
}
