//! Shifts, scales and gates that a block takes from the embedding of timestep and prompt (arXiv 2212.09748).

use candle_core::Tensor;

use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::{Linear, gated_add, layer_norm_modulated};

/// Epsilon of the norms that are modulated, fixed in diffusers.
const EPS: f64 = 1e-6;

/// The layer that gives a block its modulation.
pub(super) struct ModulationLayer {
    linear: Linear,
    width: usize,
    parts: usize,
}

impl ModulationLayer {
    /// `parts` vectors of `width`.
    pub(super) fn load(params: &Params<'_>, width: usize, parts: usize) -> Result<Self> {
        Ok(Self { linear: Linear::load(params, width, parts * width, true)?, width, parts })
    }

    /// `activated` is SiLU of the embedding, `[b, width]`.
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
    /// Layer norm of `x`, then the shift and scale of these parts.
    pub(super) fn normed(&self, x: &Tensor, shift: usize, scale: usize) -> Result<Tensor> {
        self.normed_with(x, shift, scale, EPS)
    }

    /// The same with another epsilon.
    pub(super) fn normed_with(&self, x: &Tensor, shift: usize, scale: usize, eps: f64) -> Result<Tensor> {
        let (shift, scale) = (self.0.narrow(1, shift, 1)?, self.0.narrow(1, scale, 1)?);
        Ok(layer_norm_modulated(x, &shift, &scale, eps)?)
    }

    /// `x` with `output` added, times the gate of this part.
    pub(super) fn gated(&self, x: &Tensor, gate: usize, output: &Tensor) -> Result<Tensor> {
        Ok(gated_add(x, &self.0.narrow(1, gate, 1)?, output)?)
    }
}
