//! Shifts, scales and gates computed from the embedding of timestep and prompt (arXiv 2212.09748).

use candle_core::Tensor;

use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::{Linear, gated_add, layer_norm_modulated};

/// Epsilon of the modulated norms, fixed in diffusers.
const EPS: f64 = 1e-6;

/// The layer that computes the modulation of a block.
pub(super) struct ModulationLayer {
    linear: Linear,
    width: usize,
    parts: usize,
}

impl ModulationLayer {
    /// Loads a layer that gives `parts` vectors of `width` values.
    pub(super) fn load(params: &Params<'_>, width: usize, parts: usize) -> Result<Self> {
        Ok(Self { linear: Linear::load(params, width, parts * width, true)?, width, parts })
    }

    /// The modulation for an embedding after SiLU, `[b, width]`.
    pub(super) fn forward(&self, activated: &Tensor) -> Result<Modulation> {
        let batch = activated.dim(0)?;
        Ok(Modulation(self.linear.forward(activated)?.reshape((batch, self.parts, self.width))?))
    }

    pub(super) fn macs(&self) -> u64 {
        (self.parts * self.width * self.width) as u64
    }
}

/// A block's modulation at one timestep, `[b, parts, width]`.
pub(super) struct Modulation(Tensor);

impl Modulation {
    /// Layer norm of `x`, modulated by parts `shift` and `scale`.
    pub(super) fn normed(&self, x: &Tensor, shift: usize, scale: usize) -> Result<Tensor> {
        self.normed_with(x, shift, scale, EPS)
    }

    /// [`normed`](Self::normed) with another epsilon.
    pub(super) fn normed_with(&self, x: &Tensor, shift: usize, scale: usize, eps: f64) -> Result<Tensor> {
        let (shift, scale) = (self.0.narrow(1, shift, 1)?, self.0.narrow(1, scale, 1)?);
        Ok(layer_norm_modulated(x, &shift, &scale, eps)?)
    }

    /// `x + gate · output`, with the gate of part `gate`.
    pub(super) fn gated(&self, x: &Tensor, gate: usize, output: &Tensor) -> Result<Tensor> {
        Ok(gated_add(x, &self.0.narrow(1, gate, 1)?, output)?)
    }
}
