//! CLIP (arXiv 2103.00020): transformers' `CLIPModel`, both towers, for scoring pictures against texts.
//!
//! Weights: `openai/clip-vit-base-patch32` and its kin, or folder `clip` of a model. Names are those of the checkpoint.

use candle_core::{D, DType, IndexOp, Tensor};

use super::tokenizer::Tokens;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::weights::{Params, Weights};
use crate::layers::{Activation, AttentionBias, Conv2d, LayerNorm, Linear, attention};

/// One tower's sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct TowerConfig {
    /// Width of a token.
    pub width: usize,
    /// Attention heads.
    pub heads: usize,
    /// Layers.
    pub layers: usize,
    /// Inner width of the feed-forward layer.
    pub inner: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Epsilon of the norms.
    pub eps: f64,
}

impl TowerConfig {
    fn read(config: &Config, defaults: [usize; 4]) -> Result<Self> {
        let [width, heads, layers, inner] = defaults;
        let name = config.text_or("hidden_act", "quick_gelu")?;
        let activation = Activation::from_name(name)
            .ok_or_else(|| config.unsupported("hidden_act", name, "quick_gelu, gelu, gelu_new, relu, silu"))?;
        let this = Self {
            width: config.size_or("hidden_size", width)?,
            heads: config.size_or("num_attention_heads", heads)?,
            layers: config.size_or("num_hidden_layers", layers)?,
            inner: config.size_or("intermediate_size", inner)?,
            activation,
            eps: config.number_or("layer_norm_eps", 1e-5)?,
        };
        if !this.width.is_multiple_of(this.heads) {
            let expected = format!("a divisor of hidden_size = {}", this.width);
            return Err(config.wrong("num_attention_heads", expected, this.heads.to_string()));
        }
        Ok(this)
    }
}

/// What `config.json` says. Defaults are transformers'.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// The text tower.
    pub text: TowerConfig,
    /// Tokens that are known.
    pub vocab_size: usize,
    /// Tokens per text at most.
    pub max_tokens: usize,
    /// The token whose first position stands for the text; 2 means the largest id, as in transformers.
    pub eos_token: i64,
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
            vocab_size: text.size_or("vocab_size", 49408)?,
            max_tokens: text.size_or("max_position_embeddings", 77)?,
            eos_token: text.integer_or("eos_token_id", 49407)?,
            text: TowerConfig::read(&text, [512, 8, 12, 2048])?,
            vision: TowerConfig::read(&vision, [768, 12, 12, 3072])?,
            image_size,
            patch,
            projection: config.size_or("projection_dim", 512)?,
        })
    }
}

struct Layer {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Layer {
    fn load(params: &Params<'_>, c: &TowerConfig) -> Result<Self> {
        let heads = params.at("self_attn");
        Ok(Self {
            norm1: LayerNorm::load(&params.at("layer_norm1"), c.width, c.eps)?,
            qkv: Linear::load_stacked(&heads, &["q_proj", "k_proj", "v_proj"], c.width, c.width, true)?,
            out: Linear::load(&heads.at("out_proj"), c.width, c.width, true)?,
            norm2: LayerNorm::load(&params.at("layer_norm2"), c.width, c.eps)?,
            fc1: Linear::load(&params.at("mlp.fc1"), c.width, c.inner, true)?,
            fc2: Linear::load(&params.at("mlp.fc2"), c.inner, c.width, true)?,
        })
    }

    fn forward(&self, x: &Tensor, bias: &AttentionBias, c: &TowerConfig) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * c.width, c.width));
        let scale = 1.0 / ((c.width / c.heads) as f64).sqrt();
        let x = (x + self.out.forward(&attention(&q?, &k?, &v?, c.heads, scale, bias)?)?)?;
        let inside = self.fc1.forward_with(&self.norm2.forward(&x)?, c.activation)?;
        Ok((x + self.fc2.forward(&inside)?)?)
    }
}

fn load_layers(params: &Params<'_>, c: &TowerConfig) -> Result<Vec<Layer>> {
    (0..c.layers).map(|i| Layer::load(&params.at(format_args!("encoder.layers.{i}")), c)).collect()
}

/// Both towers.
pub struct Clip {
    config: ClipConfig,
    token_embedding: Tensor,
    text_positions: Tensor,
    text_layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
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
        let (t, v) = (&config.text, &config.vision);
        let patches = (config.image_size / config.patch).pow(2);
        Ok(Self {
            token_embedding: text.at("embeddings.token_embedding").tensor("weight", &[config.vocab_size, t.width])?,
            text_positions: text.at("embeddings.position_embedding").tensor("weight", &[config.max_tokens, t.width])?,
            text_layers: load_layers(&text, t)?,
            final_layer_norm: LayerNorm::load(&text.at("final_layer_norm"), t.width, t.eps)?,
            text_projection: Linear::load(&params.at("text_projection"), t.width, config.projection, false)?,
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
        let c = &self.config;
        let (batch, length, device) = (tokens.batch(), tokens.length(), self.token_embedding.device());
        if length > c.max_tokens {
            return Err(ModelError::Input(format!("{length} tokens per text, CLIP takes {}", c.max_tokens)));
        }
        if let Some(id) = tokens.ids().iter().find(|&&id| id as usize >= c.vocab_size) {
            return Err(ModelError::Input(format!("the tokenizer gives token {id}, CLIP knows {}", c.vocab_size)));
        }
        let ids = Tensor::from_slice(tokens.ids(), batch * length, device)?;
        let mut x = self
            .token_embedding
            .index_select(&ids, 0)?
            .reshape((batch, length, c.text.width))?
            .broadcast_add(&self.text_positions.narrow(0, 0, length)?.unsqueeze(0)?)?;
        let causal: Vec<f32> =
            (0..length * length).map(|i| if i % length > i / length { -1e30 } else { 0.0 }).collect();
        let causal = Tensor::from_vec(causal, (1, 1, length, length), device)?;
        let padding = ((tokens.mask(device)?.reshape((batch, 1, 1, length))? - 1.0)? * 1e30)?;
        let bias = AttentionBias::Scores(causal.broadcast_add(&padding)?);
        for layer in &self.text_layers {
            x = layer.forward(&x, &bias, &c.text)?;
        }
        let x = self.final_layer_norm.forward(&x)?;
        let pooled: Vec<Tensor> = tokens
            .ids()
            .chunks_exact(length)
            .enumerate()
            .map(|(row, ids)| Ok(x.i((row, pooled_position(ids, c.eos_token)))?))
            .collect::<Result<_>>()?;
        unit(&self.text_projection.forward(&Tensor::stack(&pooled, 0)?)?)
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

/// Where the text's vector is read: at the first end token, or at the largest id for configs that name token 2, which
/// transformers reads so because the original checkpoints carry a wrong number. Without an end token, at the first.
fn pooled_position(ids: &[u32], eos: i64) -> usize {
    if eos == 2 {
        let largest = ids.iter().max();
        ids.iter().position(|id| Some(id) == largest).unwrap_or(0)
    } else {
        ids.iter().position(|&id| i64::from(id) == eos).unwrap_or(0)
    }
}

fn unit(x: &Tensor) -> Result<Tensor> {
    let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    Ok(x.broadcast_div(&norm)?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_follows_transformers() {
        assert_eq!(pooled_position(&[5, 1, 9, 1, 0], 1), 1);
        assert_eq!(pooled_position(&[5, 9, 9, 0], 2), 1);
        assert_eq!(pooled_position(&[5, 9], 1), 0);
    }
}
