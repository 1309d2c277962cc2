//! What PixArt adds to tokens: positions, timestep, picture size, captions.

use candle_core::{Device, Tensor};

use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::{Activation, Linear};

/// Frequencies in the sinusoidal embedding of a number.
const FREQUENCIES: usize = 128;

/// Sinusoidal position embeddings `[1, rows · columns, width]`; the first half of the width encodes the column, the
/// second the row. `base` is the side in patches of the size the model was made for, so that positions of other
/// sizes are interpolated. (diffusers `get_2d_sincos_pos_embed`.)
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

/// Cosines, then sines of a number at [`FREQUENCIES`] frequencies, `[1, 256]`. (diffusers `Timesteps(256, True, 0)`.)
fn sinusoid(number: f64, device: &Device) -> Result<Tensor> {
    let angle = |i: usize| {
        let frequency = (-(10000f64.ln()) * i as f64 / FREQUENCIES as f64).exp() as f32;
        number as f32 * frequency
    };
    let values: Vec<f32> =
        (0..FREQUENCIES).map(|i| angle(i).cos()).chain((0..FREQUENCIES).map(|i| angle(i).sin())).collect();
    Ok(Tensor::from_vec(values, (1, 2 * FREQUENCIES), device)?)
}

/// A number's sinusoid through two linear layers. (diffusers `TimestepEmbedding`.)
struct NumberEmbedding {
    first: Linear,
    second: Linear,
}

impl NumberEmbedding {
    fn load(params: &Params<'_>, width: usize) -> Result<Self> {
        Ok(Self {
            first: Linear::load(&params.at("linear_1"), 2 * FREQUENCIES, width, true)?,
            second: Linear::load(&params.at("linear_2"), width, width, true)?,
        })
    }

    fn forward(&self, number: f64, device: &Device) -> Result<Tensor> {
        Ok(self.second.forward(&self.first.forward_with(&sinusoid(number, device)?, Activation::Silu)?)?)
    }

    fn macs(width: usize) -> u64 {
        (2 * FREQUENCIES * width + width * width) as u64
    }
}

/// The timestep, with the picture's size where the model was trained with it (diffusers `AdaLayerNormSingle`).
pub(super) struct AdaLayerNormSingle {
    timestep: NumberEmbedding,
    size: Option<(NumberEmbedding, NumberEmbedding)>,
    linear: Linear,
    device: Device,
}

impl AdaLayerNormSingle {
    pub(super) fn load(params: &Params<'_>, width: usize, sized: bool) -> Result<Self> {
        let emb = params.at("emb");
        let size = if sized {
            let third = width / 3;
            Some((
                NumberEmbedding::load(&emb.at("resolution_embedder"), third)?,
                NumberEmbedding::load(&emb.at("aspect_ratio_embedder"), third)?,
            ))
        } else {
            None
        };
        Ok(Self {
            timestep: NumberEmbedding::load(&emb.at("timestep_embedder"), width)?,
            size,
            linear: Linear::load(&params.at("linear"), width, 6 * width, true)?,
            device: params.device().clone(),
        })
    }

    /// The six modulations before each block's own table is added, `[1, 6, width]`, and the embedding they come from,
    /// `[1, 1, width]`. `height` and `width` are in pixels.
    pub(super) fn forward(&self, timestep: f64, height: usize, width: usize) -> Result<(Tensor, Tensor)> {
        let mut embedding = self.timestep.forward(timestep, &self.device)?;
        if let Some((resolution, aspect)) = &self.size {
            let parts = [
                resolution.forward(height as f64, &self.device)?,
                resolution.forward(width as f64, &self.device)?,
                aspect.forward(height as f64 / width as f64, &self.device)?,
            ];
            embedding = (embedding + Tensor::cat(&parts, 1)?)?;
        }
        let modulation = self.linear.forward(&embedding.silu()?)?;
        let size = embedding.dim(1)?;
        Ok((modulation.reshape((1, 6, size))?, embedding.reshape((1, 1, size))?))
    }

    pub(super) fn macs(&self, width: usize) -> u64 {
        let size = if self.size.is_some() { 3 * NumberEmbedding::macs(width / 3) } else { 0 };
        NumberEmbedding::macs(width) + size + 6 * (width * width) as u64
    }
}

/// Text embeddings into the transformer's width. (diffusers `PixArtAlphaTextProjection`.)
pub(super) struct CaptionProjection {
    first: Linear,
    second: Linear,
}

impl CaptionProjection {
    pub(super) fn load(params: &Params<'_>, channels: usize, width: usize) -> Result<Self> {
        Ok(Self {
            first: Linear::load(&params.at("linear_1"), channels, width, true)?,
            second: Linear::load(&params.at("linear_2"), width, width, true)?,
        })
    }

    pub(super) fn forward(&self, captions: &Tensor) -> Result<Tensor> {
        Ok(self.second.forward(&self.first.forward_with(captions, Activation::GeluTanh)?)?)
    }
}
