//! CLIP (arXiv 2103.00020) with both towers: transformers' `CLIPModel` or open_clip's `CLIP`.
//!
//! Weights: `openai/clip-vit-base-patch32` and similar, `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`, or folder `clip` of a
//! model. Names are those of the checkpoint.

use candle_core::{D, DType, IndexOp, Tensor};

use super::clip_layers::{Layer, load_layers};
pub use super::clip_layers::{Naming, TowerConfig};
use super::clip_text::{Padding, TextConfig, TextTower};
use super::tokenizer::Tokens;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::weights::{Params, Weights};
use crate::layers::{Activation, AttentionBias, Conv2d, LayerNorm, Linear};

/// The settings in `config.json` or `open_clip_config.json`. Defaults are transformers' and open_clip's.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// Naming scheme of the weights.
    pub naming: Naming,
    /// Settings of the text tower.
    pub text: TextConfig,
    /// Sizes of the image tower.
    pub vision: TowerConfig,
    /// Side of the input image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Width of the joint embedding space.
    pub projection: usize,
}

impl ClipConfig {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        config.choice("model_type", "clip", &["clip"])?;
        let (text, vision) = (config.object("text_config")?, config.object("vision_config")?);
        let (image_size, patch) = sides(&vision, [224, 32])?;
        if vision.size_or("num_channels", 3)? != 3 {
            return Err(vision.unsupported("num_channels", vision.size("num_channels")?, "3"));
        }
        Ok(Self {
            naming: Naming::Transformers,
            text: TextConfig::read(&text)?,
            vision: TowerConfig::read(&vision, [768, 12, 12, 3072])?,
            image_size,
            patch,
            projection: config.size_or("projection_dim", 512)?,
        })
    }

    /// Reads and checks an open_clip config. Fails if a tower is not open_clip's own transformer.
    pub fn read_open_clip(config: &Config) -> Result<Self> {
        let model = config.object("model_cfg")?;
        model.not_set("custom_text")?;
        let (text, vision) = (model.object("text_cfg")?, model.object("vision_cfg")?);
        for (tower, field) in [(&text, "hf_model_name"), (&vision, "timm_model_name")] {
            if let Some(name) = tower.text_opt(field)? {
                return Err(tower.unsupported(field, name, "towers of open_clip's own"));
            }
        }
        for field in ["attentional_pool", "global_average_pool", "no_ln_pre"] {
            vision.not_set(field)?;
        }
        let activation = if model.flag_or("quick_gelu", false)? { Activation::QuickGelu } else { Activation::GeluErf };
        let tower = |config: &Config, width: usize, heads: usize| -> Result<TowerConfig> {
            let inner = (width as f64 * config.number_or("mlp_ratio", 4.0)?) as usize;
            Ok(TowerConfig { width, heads, layers: config.size_or("layers", 12)?, inner, activation, eps: 1e-5 })
        };
        let (image_size, patch) = sides(&vision, [224, 16])?;
        let (text_width, width) = (text.size_or("width", 512)?, vision.size_or("width", 768)?);
        let head = vision.size_or("head_width", 64)?;
        if !width.is_multiple_of(head) {
            return Err(vision.wrong("head_width", format!("a divisor of width = {width}"), head.to_string()));
        }
        let heads = text.size_or("heads", 8)?;
        if !text_width.is_multiple_of(heads) {
            return Err(text.wrong("heads", format!("a divisor of width = {text_width}"), heads.to_string()));
        }
        Ok(Self {
            naming: Naming::OpenClip,
            text: TextConfig {
                tower: tower(&text, text_width, heads)?,
                vocab_size: text.size_or("vocab_size", 49408)?,
                max_tokens: text.size_or("context_length", 77)?,
                // open_clip pools at the largest id, which 2 stands for.
                eos_token: 2,
            },
            vision: tower(&vision, width, width / head)?,
            image_size,
            patch,
            projection: model.size("embed_dim")?,
        })
    }
}

/// Sides of the image and of a patch in pixels, with their defaults.
fn sides(vision: &Config, [image_size, patch]: [usize; 2]) -> Result<(usize, usize)> {
    let (image_size, patch) = (vision.size_or("image_size", image_size)?, vision.size_or("patch_size", patch)?);
    if image_size.is_multiple_of(patch) {
        return Ok((image_size, patch));
    }
    Err(vision.wrong("image_size", format!("a multiple of patch_size = {patch}"), image_size.to_string()))
}

/// The text tower and the image tower.
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
        let (params, v, naming) = (weights.root(), &config.vision, config.naming);
        let positions = [(config.image_size / config.patch).pow(2) + 1, v.width];
        let text_width = config.text.tower.width;
        let patches = |params: Params<'_>| Conv2d::load_patches(&params, 3, v.width, config.patch, false);
        let norm = |params: Params<'_>| LayerNorm::load(&params, v.width, v.eps);
        Ok(match naming {
            Naming::Transformers => {
                let (text, vision) = (params.at("text_model"), params.at("vision_model"));
                let embeddings = vision.at("embeddings");
                Self {
                    text: TextTower::load(&text, config.text.clone(), naming)?,
                    text_projection: Linear::load(&params.at("text_projection"), text_width, config.projection, false)?,
                    class_embedding: embeddings.tensor("class_embedding", &[v.width])?,
                    patch_embedding: patches(embeddings.at("patch_embedding"))?,
                    vision_positions: embeddings.at("position_embedding").tensor("weight", &positions)?,
                    // Misspelled in transformers.
                    pre_layer_norm: norm(vision.at("pre_layrnorm"))?,
                    vision_layers: load_layers(&vision, v, naming)?,
                    post_layer_norm: norm(vision.at("post_layernorm"))?,
                    visual_projection: Linear::load(
                        &params.at("visual_projection"),
                        v.width,
                        config.projection,
                        false,
                    )?,
                    config,
                }
            }
            Naming::OpenClip => {
                let vision = params.at("visual");
                Self {
                    text: TextTower::load(&params, config.text.clone(), naming)?,
                    text_projection: Linear::load_transposed(
                        &params,
                        "text_projection",
                        text_width,
                        config.projection,
                    )?,
                    class_embedding: vision.tensor("class_embedding", &[v.width])?,
                    patch_embedding: patches(vision.at("conv1"))?,
                    vision_positions: vision.tensor("positional_embedding", &positions)?,
                    pre_layer_norm: norm(vision.at("ln_pre"))?,
                    vision_layers: load_layers(&vision, v, naming)?,
                    post_layer_norm: norm(vision.at("ln_post"))?,
                    visual_projection: Linear::load_transposed(&vision, "proj", v.width, config.projection)?,
                    config,
                }
            }
        })
    }

    /// The config of the model.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Unit vectors `[b, projection]` of texts.
    pub fn embed_texts(&self, tokens: &Tokens) -> Result<Tensor> {
        let states = self.text.forward(tokens, Padding::Masked)?;
        unit(&self.text_projection.forward(&self.text.pool(&states.last, tokens)?)?)
    }

    /// Unit vectors `[b, projection]` of normalized images `[b, 3, image_size, image_size]`.
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
