//! PixArt's adaptive layer norm: one modulation for all blocks, computed from timestep and image size.

use candle_core::{Device, Tensor};

use super::embeddings::{NumberEmbedding, Spread};
use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::Linear;

/// Embeds the timestep, and the image size if the model was trained with it. (diffusers `AdaLayerNormSingle`.)
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
                NumberEmbedding::load(&emb.at("resolution_embedder"), third, Spread::Open)?,
                NumberEmbedding::load(&emb.at("aspect_ratio_embedder"), third, Spread::Open)?,
            ))
        } else {
            None
        };
        Ok(Self {
            timestep: NumberEmbedding::load(&emb.at("timestep_embedder"), width, Spread::Open)?,
            size,
            linear: Linear::load(&params.at("linear"), width, 6 * width, true)?,
            device: params.device().clone(),
        })
    }

    /// The six modulation vectors to which each block adds its table, `[1, 6, width]`, and the embedding that they are
    /// computed from, `[1, 1, width]`. `height` and `width` are in pixels.
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
