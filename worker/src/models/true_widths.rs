//! The published transformers at their true widths, with random weights and only enough layers to contain every kind of
//! block, for timing without the published weights.
//!
//! Sources: `transformer/config.json` of the model named in each entry.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::block_model::{BlockModel, Conditioning, GuidanceKind, LatentSize, Prompts};
use super::dit::{Dit, DitConfig};
use super::flux::{Flux, FluxConfig};
use super::pixart::{PixArt, PixArtConfig};
use super::sd3::{Sd3, Sd3Config};
use super::vae::{VaeConfig, VaeDecoder};
use crate::files::config::Config;
use crate::files::error::Result;
use crate::files::weights::Weights;

/// A model and the sizes of its inputs for one image.
#[derive(Debug, Clone, Copy)]
pub struct TrueWidth {
    /// Name of the model.
    pub name: &'static str,
    /// Its config, with fewer layers.
    config: &'static str,
    /// Latent rows and columns of the image.
    side: usize,
    /// Tokens and channels of the text embeddings; zeros for a model of classes.
    text: (usize, usize),
    /// Channels of the pooled text embedding; 0 if there is none.
    pooled: usize,
}

/// The models, each for an image of 256² (DiT) or 512² pixels.
pub const MODELS: [TrueWidth; 4] = [
    TrueWidth {
        // PixArt-alpha/PixArt-XL-2-512x512
        name: "pixart-alpha",
        config: r#"{"_class_name": "PixArtTransformer2DModel", "num_layers": 1, "sample_size": 64, "caption_channels": 4096,
                    "use_additional_conditions": false}"#,
        side: 64,
        text: (120, 4096),
        pooled: 0,
    },
    TrueWidth {
        // facebook/DiT-XL-2-256
        name: "dit-xl-2",
        config: r#"{"_class_name": "DiTTransformer2DModel", "norm_type": "ada_norm_zero", "num_layers": 1, "sample_size": 32,
                    "out_channels": 8}"#,
        side: 32,
        text: (0, 0),
        pooled: 0,
    },
    TrueWidth {
        // black-forest-labs/FLUX.1-dev
        name: "flux-1-dev",
        config: r#"{"_class_name": "FluxTransformer2DModel", "num_layers": 1, "num_single_layers": 1, "guidance_embeds": true}"#,
        side: 64,
        text: (512, 4096),
        pooled: 768,
    },
    TrueWidth {
        // stabilityai/stable-diffusion-3.5-medium
        name: "sd-3.5-medium",
        config: r#"{"_class_name": "SD3Transformer2DModel", "num_layers": 3, "num_attention_heads": 24,
                    "caption_projection_dim": 1536, "dual_attention_layers": [0], "qk_norm": "rms_norm",
                    "pos_embed_max_size": 384}"#,
        side: 64,
        text: (333, 4096),
        pooled: 2048,
    },
];

/// Config of the decoder that PixArt-α and DiT share (stabilityai/sd-vae-ft-ema, 4 latent channels), and the side of
/// the latents of an image of 512² pixels.
const DECODER: (&str, usize) = (
    r#"{"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}"#,
    64,
);

/// The decoder with random weights in f32, and the latents of one image.
pub fn decoder(device: &Device) -> Result<(VaeDecoder, Tensor)> {
    let (config, side) = DECODER;
    let config = VaeConfig::read(&Config::parse(Path::new("vae"), config)?, false)?;
    let latents = Tensor::zeros((1, config.latent_channels, side, side), DType::F32, device)?;
    Ok((VaeDecoder::load(&Weights::random(device), config)?, latents))
}

impl TrueWidth {
    /// Builds the model with random weights.
    pub fn load(&self, device: &Device, dtype: DType) -> Result<Box<dyn BlockModel>> {
        let config = Config::parse(Path::new(self.name), self.config)?;
        let weights = Weights::random(device).with_dtype(dtype);
        Ok(match config.text("_class_name")? {
            "PixArtTransformer2DModel" => Box::new(PixArt::load(&weights, PixArtConfig::read(&config)?)?),
            "DiTTransformer2DModel" => Box::new(Dit::load(&weights, DitConfig::read(&config)?)?),
            "FluxTransformer2DModel" => Box::new(Flux::load(&weights, FluxConfig::read(&config)?)?),
            _ => Box::new(Sd3::load(&weights, Sd3Config::read(&config)?)?),
        })
    }

    /// Latents and conditioning of one image, in two rows for classifier-free guidance. All values are zeros or ones,
    /// which does not affect timing.
    pub fn inputs(&self, model: &dyn BlockModel, device: &Device) -> Result<(Tensor, Conditioning)> {
        let rows = if model.guidance() == GuidanceKind::ClassifierFree { 2 } else { 1 };
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, device);
        let (tokens, channels) = self.text;
        let prompts = if tokens == 0 {
            Prompts::classes(Tensor::zeros(rows, DType::U32, device)?)
        } else {
            Prompts {
                embeddings: Some(zeros(&[rows, tokens, channels])?),
                mask: Some(Tensor::ones((rows, tokens), DType::F32, device)?),
                pooled: (self.pooled > 0).then(|| zeros(&[rows, self.pooled])).transpose()?,
                classes: None,
            }
        };
        let size = LatentSize { height: self.side, width: self.side, scale: 8 };
        let latents = zeros(&[rows, model.latent_channels(), self.side, self.side])?;
        Ok((latents, Conditioning { prompts, guidance: Some(3.5), size }))
    }
}
