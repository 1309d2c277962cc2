//! The feed-forward layer of transformer blocks: a projection to the inner width, an activation, a projection back.

use candle_core::Tensor;

use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::{Activation, Linear};

/// Ratio of the inner to the outer width, fixed in diffusers.
const FACTOR: usize = 4;

/// diffusers' `FeedForward` with a GELU.
pub(super) struct FeedForward {
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    pub(super) fn load(params: &Params<'_>, width: usize, activation: Activation) -> Result<Self> {
        Ok(Self {
            up: Linear::load(&params.at("net.0.proj"), width, FACTOR * width, true)?,
            down: Linear::load(&params.at("net.2"), FACTOR * width, width, true)?,
            activation,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.down.forward(&self.up.forward_with(x, self.activation)?)?)
    }

    /// Multiply-accumulates per token.
    pub(super) fn macs(width: u64) -> u64 {
        2 * FACTOR as u64 * width * width
    }
}
