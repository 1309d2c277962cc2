//! CLIP (arXiv 2103.00020): transformers' `CLIPModel`, both towers, for scoring pictures against texts.
//!
//! Weights: `openai/clip-vit-base-patch32` and its kin, or folder `clip` of a model. Names are those of the checkpoint.

use candle_core::{D, DType, IndexOp, Tensor};

pub use super::clip_layers::TowerConfig;
use super::clip_layers::{Layer, load_layers};
use super::clip_text::{Padding, TextConfig, TextTower};
use super::tokenizer::Tokens;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::weights::Weights;
use crate::layers::{AttentionBias, Conv2d, LayerNorm, Linear};

/// What `config.json` says. Defaults are transformers'.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// The text tower.
    pub text: TextConfig,
    /// The picture tower.
    pub vision: TowerConfig,
    /// Rows and columns of the picture.
    pub image_size: usize,
    /// Side of a patch.
    pub patch: usize,
    /// Width of the common space.
    pub projection: usize,
}

impl ClipConfig {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        config.choice("model_type", "clip", &["clip"])?;
        let (text, vision) = (config.object("text_config")?, config.object("vision_config")?);
        let image_size = vision.size_or("image_size", 224)?;
        let patch = vision.size_or("patch_size", 32)?;
        if !image_size.is_multiple_of(patch) {
            return Err(vision.wrong(
                "image_size",
                format!("a multiple of patch_size = {patch}"),
                image_size.to_string(),
            ));
        }
        if vision.size_or("num_channels", 3)? != 3 {
            return Err(vision.unsupported("num_channels", vision.size("num_channels")?, "3"));
        }
        Ok(Self {
            text: TextConfig::read(&text)?,
            vision: TowerConfig::read(&vision, [768, 12, 12, 3072])?,
            image_size,
            patch,
            projection: config.size_or("projection_dim", 512)?,
        })
    }
}

/// Both towers.
pub struct Clip {
    config: ClipConfig,
    text: TextTower,
    text_projection: Linear,
    class_embedding: Tensor,
    patch_embedding: Conv2d,
    vision_positions: Tensor,
    pre_layer_norm: LayerNorm,
    vision_layers: Vec<Layer>,
    post_layer_norm: LayerNorm,
    visual_projection: Linear,
}

impl Clip {
    /// Loads both towers.
    pub fn load(weights: &Weights, config: ClipConfig) -> Result<Self> {
        let params = weights.root();
        let (text, vision) = (params.at("text_model"), params.at("vision_model"));
        let v = &config.vision;
        let patches = (config.image_size / config.patch).pow(2);
        Ok(Self {
            text: TextTower::load(&text, config.text.clone())?,
            text_projection: Linear::load(
                &params.at("text_projection"),
                config.text.tower.width,
                config.projection,
                false,
            )?,
            class_embedding: vision.at("embeddings").tensor("class_embedding", &[v.width])?,
            patch_embedding: Conv2d::load_patches(
                &vision.at("embeddings.patch_embedding"),
                3,
                v.width,
                config.patch,
                false,
            )?,
            vision_positions: vision.at("embeddings.position_embedding").tensor("weight", &[patches + 1, v.width])?,
            // transformers' spelling
            pre_layer_norm: LayerNorm::load(&vision.at("pre_layrnorm"), v.width, v.eps)?,
            vision_layers: load_layers(&vision, v)?,
            post_layer_norm: LayerNorm::load(&vision.at("post_layernorm"), v.width, v.eps)?,
            visual_projection: Linear::load(&params.at("visual_projection"), v.width, config.projection, false)?,
            config,
        })
    }

    /// The config it was loaded with.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Unit vectors `[b, projection]` of texts.
    pub fn embed_texts(&self, tokens: &Tokens) -> Result<Tensor> {
        let states = self.text.forward(tokens, Padding::Masked)?;
        unit(&self.text_projection.forward(&self.text.pool(&states.last, tokens)?)?)
    }

    /// Unit vectors `[b, projection]` of normalised pictures `[b, 3, image_size, image_size]`.
    pub fn embed_images(&self, pixels: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let (batch, ..) = pixels.dims4()?;
        if pixels.dims() != [batch, 3, c.image_size, c.image_size] {
            return Err(ModelError::Input(format!(
                "CLIP takes pictures of {0}x{0}, got {1:?}",
                c.image_size,
                pixels.dims()
            )));
        }
        let patches = self.patch_embedding.forward(pixels)?.flatten_from(2)?.transpose(1, 2)?;
        let class = self.class_embedding.reshape((1, 1, c.vision.width))?.broadcast_as((batch, 1, c.vision.width))?;
        let x = Tensor::cat(&[class, patches], 1)?.broadcast_add(&self.vision_positions.unsqueeze(0)?)?;
        let mut x = self.pre_layer_norm.forward(&x)?;
        for layer in &self.vision_layers {
            x = layer.forward(&x, &AttentionBias::None, &c.vision)?;
        }
        let pooled = self.post_layer_norm.forward(&x.i((.., 0))?.contiguous()?)?;
        unit(&self.visual_projection.forward(&pooled)?)
    }
}

fn unit(x: &Tensor) -> Result<Tensor> {
    let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    Ok(x.broadcast_div(&norm)?.to_dtype(DType::F32)?)
}
