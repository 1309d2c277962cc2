//! Embeddings that several transformers share: positions, numbers such as the timestep, projected texts. Each model's
//! own file combines them.

use candle_core::{DType, Device, Tensor};

use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::{Activation, Linear};

/// Number of frequencies in the sinusoidal embedding of a number.
const FREQUENCIES: usize = 128;

/// Sinusoidal position embeddings `[1, rows · columns, width]`; the first half of the width encodes the column, the
/// second the row. `base` is the side of the model's native size in patches; positions of other sizes are interpolated
/// to it. (diffusers `get_2d_sincos_pos_embed`.)
pub(super) fn positions(
    rows: usize,
    columns: usize,
    width: usize,
    base: f64,
    interpolation: f64,
    device: &Device,
) -> Result<Tensor> {
    let half = width / 2;
    let place = |i: usize, n: usize| {
        // diffusers divides in f32.
        let step = (n as f64 / base) as f32;
        f64::from(i as f32 / step / interpolation as f32)
    };
    let mut values = Vec::with_capacity(rows * columns * width);
    for row in 0..rows {
        for column in 0..columns {
            for position in [place(column, columns), place(row, rows)] {
                let angle = |i: usize| position / 10000f64.powf(i as f64 / (half as f64 / 2.0));
                values.extend((0..half / 2).map(|i| angle(i).sin() as f32));
                values.extend((0..half / 2).map(|i| angle(i).cos() as f32));
            }
        }
    }
    Ok(Tensor::from_vec(values, (1, rows * columns, width), device)?)
}

/// The spacing of the frequencies of a sinusoidal embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// The last is just above 1 / 10000. (diffusers `downscale_freq_shift=0`.)
    Open,
    /// The last is 1 / 10000. (diffusers `downscale_freq_shift=1`.)
    Closed,
}

/// Cosines, then sines, of a number at [`FREQUENCIES`] frequencies, `[1, 256]`. (diffusers `Timesteps(256, True, …)`.)
fn sinusoid(number: f64, spread: Spread, device: &Device) -> Result<Tensor> {
    let angle = |i: usize| {
        let frequency = match spread {
            Spread::Open => (-(10000f64.ln()) * i as f64 / FREQUENCIES as f64).exp() as f32,
            // Rounded to f32 where torch rounds.
            Spread::Closed => (-(10000f64.ln()) as f32 * i as f32 / (FREQUENCIES - 1) as f32).exp(),
        };
        number as f32 * frequency
    };
    let values: Vec<f32> =
        (0..FREQUENCIES).map(|i| angle(i).cos()).chain((0..FREQUENCIES).map(|i| angle(i).sin())).collect();
    Ok(Tensor::from_vec(values, (1, 2 * FREQUENCIES), device)?)
}

/// The sinusoid of a number, passed through two linear layers. (diffusers `TimestepEmbedding`.)
pub(super) struct NumberEmbedding {
    first: Linear,
    second: Linear,
    spread: Spread,
    dtype: DType,
}

impl NumberEmbedding {
    pub(super) fn load(params: &Params<'_>, width: usize, spread: Spread) -> Result<Self> {
        Ok(Self {
            spread,
            dtype: params.dtype(),
            first: Linear::load(&params.at("linear_1"), 2 * FREQUENCIES, width, true)?,
            second: Linear::load(&params.at("linear_2"), width, width, true)?,
        })
    }

    /// The embedding of a number, `[1, width]`.
    pub(super) fn forward(&self, number: f64, device: &Device) -> Result<Tensor> {
        let waves = sinusoid(number, self.spread, device)?.to_dtype(self.dtype)?;
        Ok(self.second.forward(&self.first.forward_with(&waves, Activation::Silu)?)?)
    }

    pub(super) fn macs(width: usize) -> u64 {
        (2 * FREQUENCIES * width + width * width) as u64
    }
}

/// Projects text embeddings to the width of the transformer. (diffusers `PixArtAlphaTextProjection`.)
pub(super) struct TextProjection {
    activation: Activation,
    first: Linear,
    second: Linear,
}

impl TextProjection {
    pub(super) fn load(params: &Params<'_>, channels: usize, width: usize, activation: Activation) -> Result<Self> {
        Ok(Self {
            activation,
            first: Linear::load(&params.at("linear_1"), channels, width, true)?,
            second: Linear::load(&params.at("linear_2"), width, width, true)?,
        })
    }

    pub(super) fn forward(&self, texts: &Tensor) -> Result<Tensor> {
        Ok(self.second.forward(&self.first.forward_with(texts, self.activation)?)?)
    }

    pub(super) fn macs(channels: usize, width: usize) -> u64 {
        (width * (channels + width)) as u64
    }
}
