//! BLIP (arXiv 2201.12086): the image tower, and the text tower that reads the image through cross-attention.
//!
//! Tensors are named as in `BLIP_Pretrain` of the authors' program and ImageReward's weights: a ViT with timm's names
//! below `visual_encoder`, and a BERT without token types below `text_encoder`. Caption generation is not implemented.

use candle_core::{IndexOp, Tensor};

use super::tokenizer::Tokens;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::weights::Params;
use crate::layers::{Activation, AttentionBias, Conv2d, LayerNorm, Linear, attention};

/// Channels of a head in the image tower.
const HEAD: usize = 64;
/// Epsilon of the image tower's norms.
const VISION_EPS: f64 = 1e-6;

/// The image tower: ViT-L/16 in ImageReward.
pub struct VisionTower {
    image_size: usize,
    heads: usize,
    class_token: Tensor,
    positions: Tensor,
    patches: Conv2d,
    blocks: Vec<VisionBlock>,
    norm: LayerNorm,
}

struct VisionBlock {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl VisionTower {
    /// Loads the tower from `params` below `visual_encoder`. Its sizes are read from the tensors.
    pub fn load(params: &Params<'_>) -> Result<Self> {
        let positions = params.shape("pos_embed", 3)?;
        let (tokens, width) = (positions[1], positions[2]);
        let patch = params.shape("patch_embed.proj.weight", 4)?[2];
        let side = (tokens - 1).isqrt();
        if side * side + 1 != tokens || !width.is_multiple_of(HEAD) {
            return Err(ModelError::Input(format!(
                "BLIP's image tower with {tokens} positions of {width} channels is not supported: positions must be a square \
                 plus one, channels a multiple of {HEAD}"
            )));
        }
        let inner = params.shape("blocks.0.mlp.fc1.weight", 2)?[0];
        let blocks = (0..)
            .map(|i| params.at(format_args!("blocks.{i}")))
            .take_while(|block| block.has("norm1.weight"))
            .map(|block| {
                Ok(VisionBlock {
                    norm1: LayerNorm::load(&block.at("norm1"), width, VISION_EPS)?,
                    qkv: Linear::load(&block.at("attn.qkv"), width, 3 * width, true)?,
                    out: Linear::load(&block.at("attn.proj"), width, width, true)?,
                    norm2: LayerNorm::load(&block.at("norm2"), width, VISION_EPS)?,
                    fc1: Linear::load(&block.at("mlp.fc1"), width, inner, true)?,
                    fc2: Linear::load(&block.at("mlp.fc2"), inner, width, true)?,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            image_size: side * patch,
            heads: width / HEAD,
            class_token: params.tensor("cls_token", &[1, 1, width])?,
            positions: params.tensor("pos_embed", &[1, tokens, width])?,
            patches: Conv2d::load_patches(&params.at("patch_embed.proj"), 3, width, patch, true)?,
            blocks,
            norm: LayerNorm::load(&params.at("norm"), width, VISION_EPS)?,
        })
    }

    /// Side of the images it takes, in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Channels of a token.
    pub fn width(&self) -> usize {
        self.heads * HEAD
    }

    /// Normalized images `[b, 3, image_size, image_size]` → tokens `[b, 1 + patches, width]`, the class token first.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, ..) = pixels.dims4()?;
        let width = self.width();
        let patches = self.patches.forward(pixels)?.flatten_from(2)?.transpose(1, 2)?;
        let class = self.class_token.broadcast_as((batch, 1, width))?;
        let mut x = Tensor::cat(&[class, patches], 1)?.broadcast_add(&self.positions)?;
        for block in &self.blocks {
            let qkv = block.qkv.forward(&block.norm1.forward(&x)?)?;
            let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * width, width));
            let scale = 1.0 / (HEAD as f64).sqrt();
            let attended = attention(&q?, &k?, &v?, self.heads, scale, &AttentionBias::None)?;
            x = (x + block.out.forward(&attended)?)?;
            let inside = block.fc1.forward_with(&block.norm2.forward(&x)?, Activation::GeluErf)?;
            x = (x + block.fc2.forward(&inside)?)?;
        }
        Ok(self.norm.forward(&x)?)
    }
}

/// Settings of the text tower in `med_config.json`. Defaults are those of BERT-base.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    width: usize,
    heads: usize,
    layers: usize,
    inner: usize,
    vocab_size: usize,
    max_tokens: usize,
    eps: f64,
}

impl TextConfig {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        config.choice("hidden_act", "gelu", &["gelu"])?;
        let (width, heads) = (config.size_or("hidden_size", 768)?, config.size_or("num_attention_heads", 12)?);
        if !width.is_multiple_of(heads) {
            let expected = format!("a divisor of hidden_size = {width}");
            return Err(config.wrong("num_attention_heads", expected, heads.to_string()));
        }
        Ok(Self {
            width,
            heads,
            layers: config.size_or("num_hidden_layers", 12)?,
            inner: config.size_or("intermediate_size", 3072)?,
            vocab_size: config.size_or("vocab_size", 30524)?,
            max_tokens: config.size_or("max_position_embeddings", 512)?,
            eps: config.number_or("layer_norm_eps", 1e-12)?,
        })
    }

    /// Channels of a token.
    pub fn width(&self) -> usize {
        self.width
    }
}

/// The text tower: a BERT in which every layer also attends to the image.
pub struct TextTower {
    config: TextConfig,
    words: Tensor,
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<TextLayer>,
}

struct TextLayer {
    qkv: Linear,
    out: Linear,
    norm1: LayerNorm,
    query: Linear,
    key_value: Linear,
    cross_out: Linear,
    cross_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    norm2: LayerNorm,
}

impl TextTower {
    /// Loads the tower from `params` below `text_encoder`, for image tokens of `picture_width` channels.
    pub fn load(params: &Params<'_>, config: TextConfig, picture_width: usize) -> Result<Self> {
        let (embeddings, c) = (params.at("embeddings"), &config);
        let norm = |params: Params<'_>| LayerNorm::load(&params.at("LayerNorm"), c.width, c.eps);
        let layer = |params: Params<'_>| -> Result<TextLayer> {
            let (own, cross) = (params.at("attention"), params.at("crossattention"));
            Ok(TextLayer {
                qkv: Linear::load_stacked(&own.at("self"), &["query", "key", "value"], c.width, c.width, true)?,
                out: Linear::load(&own.at("output.dense"), c.width, c.width, true)?,
                norm1: norm(own.at("output"))?,
                query: Linear::load(&cross.at("self.query"), c.width, c.width, true)?,
                key_value: Linear::load_stacked(&cross.at("self"), &["key", "value"], picture_width, c.width, true)?,
                cross_out: Linear::load(&cross.at("output.dense"), c.width, c.width, true)?,
                cross_norm: norm(cross.at("output"))?,
                fc1: Linear::load(&params.at("intermediate.dense"), c.width, c.inner, true)?,
                fc2: Linear::load(&params.at("output.dense"), c.inner, c.width, true)?,
                norm2: norm(params.at("output"))?,
            })
        };
        Ok(Self {
            words: embeddings.at("word_embeddings").tensor("weight", &[c.vocab_size, c.width])?,
            positions: embeddings.at("position_embeddings").tensor("weight", &[c.max_tokens, c.width])?,
            norm: norm(embeddings)?,
            layers: (0..c.layers)
                .map(|i| layer(params.at(format_args!("encoder.layer.{i}"))))
                .collect::<Result<_>>()?,
            config,
        })
    }

    /// The state of the first token of each text, `[b, width]`, given image tokens `[b, tokens, picture_width]`.
    pub fn forward(&self, tokens: &Tokens, pictures: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let (batch, length, device) = (tokens.batch(), tokens.length(), self.words.device());
        if length > c.max_tokens {
            return Err(ModelError::Input(format!("{length} tokens per text, but BLIP takes {}", c.max_tokens)));
        }
        if let Some(id) = tokens.ids().iter().find(|&&id| id as usize >= c.vocab_size) {
            return Err(ModelError::Input(format!("the tokenizer gives token {id}, but BLIP knows {}", c.vocab_size)));
        }
        let ids = Tensor::from_slice(tokens.ids(), batch * length, device)?;
        let words = self.words.index_select(&ids, 0)?.reshape((batch, length, c.width))?;
        let mut x = self.norm.forward(&words.broadcast_add(&self.positions.narrow(0, 0, length)?.unsqueeze(0)?)?)?;
        let padding = AttentionBias::Keys(((tokens.mask(device)? - 1.0)? * 1e30)?);
        let scale = 1.0 / ((c.width / c.heads) as f64).sqrt();
        for layer in &self.layers {
            let qkv = layer.qkv.forward(&x)?;
            let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * c.width, c.width));
            let own = layer.out.forward(&attention(&q?, &k?, &v?, c.heads, scale, &padding)?)?;
            x = layer.norm1.forward(&(own + x)?)?;
            let key_value = layer.key_value.forward(pictures)?;
            let [k, v] = [0, 1].map(|i| key_value.narrow(2, i * c.width, c.width));
            let seen = attention(&layer.query.forward(&x)?, &k?, &v?, c.heads, scale, &AttentionBias::None)?;
            x = layer.cross_norm.forward(&(layer.cross_out.forward(&seen)? + x)?)?;
            let inside = layer.fc1.forward_with(&x, Activation::GeluErf)?;
            x = layer.norm2.forward(&(layer.fc2.forward(&inside)? + x)?)?;
        }
        Ok(x.i((.., 0))?.contiguous()?)
    }
}
