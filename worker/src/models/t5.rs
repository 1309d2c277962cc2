//! The T5 encoder (arXiv 1910.10683, v1.1): transformers' `T5EncoderModel`.
//!
//! Weights: `google/t5-v1_1-xxl`, or folder `text_encoder` of a PixArt model. Padding is masked, as in diffusers.

use candle_core::{DType, Tensor};

use super::tokenizer::Tokens;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;
use crate::files::weights::{Params, Weights};
use crate::layers::{Activation, AttentionBias, Linear, RmsNorm, attention};

/// The settings in `text_encoder/config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct T5Config {
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Width of a token.
    pub d_model: usize,
    /// Width of one head.
    pub d_kv: usize,
    /// Inner width of the feed-forward layer.
    pub d_ff: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Number of buckets of relative distance.
    pub buckets: usize,
    /// Distance beyond which all share the last bucket.
    pub max_distance: usize,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Whether the feed-forward layer is gated.
    pub gated: bool,
}

impl T5Config {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        fields::check(config, "T5Config")?;
        let projection = config.text_or("feed_forward_proj", "relu")?;
        let (gated, name) = match projection.strip_prefix("gated-") {
            Some(name) => (true, name),
            None => (false, projection),
        };
        // As in transformers, "gated-gelu" means the tanh form.
        let activation = match (gated, name) {
            (true, "gelu") => Some(Activation::GeluTanh),
            _ => Activation::from_name(name),
        }
        .ok_or_else(|| config.unsupported("feed_forward_proj", projection, "relu, gelu, gated-gelu, gated-silu"))?;
        Ok(Self {
            vocab_size: config.size("vocab_size")?,
            d_model: config.size("d_model")?,
            d_kv: config.size("d_kv")?,
            d_ff: config.size("d_ff")?,
            layers: config.size("num_layers")?,
            heads: config.size("num_heads")?,
            buckets: config.size_or("relative_attention_num_buckets", 32)?,
            max_distance: config.size_or("relative_attention_max_distance", 128)?,
            norm_eps: config.number_or("layer_norm_epsilon", 1e-6)?,
            activation,
            gated,
        })
    }
}

struct Block {
    attention_norm: RmsNorm,
    qkv: Linear,
    out: Linear,
    ff_norm: RmsNorm,
    wi: Linear,
    gate: Option<Linear>,
    wo: Linear,
}

impl Block {
    fn load(params: &Params<'_>, c: &T5Config) -> Result<Self> {
        let inner = c.heads * c.d_kv;
        let (attention, ff) = (params.at("layer.0"), params.at("layer.1"));
        let (heads, dense) = (attention.at("SelfAttention"), ff.at("DenseReluDense"));
        let (wi, gate) = if c.gated {
            // wi_0 is activated and multiplied by wi_1.
            let gate = Linear::load(&dense.at("wi_1"), c.d_model, c.d_ff, false)?;
            (Linear::load(&dense.at("wi_0"), c.d_model, c.d_ff, false)?, Some(gate))
        } else {
            (Linear::load(&dense.at("wi"), c.d_model, c.d_ff, false)?, None)
        };
        Ok(Self {
            attention_norm: RmsNorm::load(&attention.at("layer_norm"), c.d_model, c.norm_eps)?,
            qkv: Linear::load_stacked(&heads, &["q", "k", "v"], c.d_model, inner, false)?,
            out: Linear::load(&heads.at("o"), inner, c.d_model, false)?,
            ff_norm: RmsNorm::load(&ff.at("layer_norm"), c.d_model, c.norm_eps)?,
            wi,
            gate,
            wo: Linear::load(&dense.at("wo"), c.d_ff, c.d_model, false)?,
        })
    }

    fn forward(&self, hidden: &Tensor, bias: &AttentionBias, c: &T5Config) -> Result<Tensor> {
        let inner = c.heads * c.d_kv;
        let qkv = self.qkv.forward(&self.attention_norm.forward(hidden)?)?;
        let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * inner, inner));
        // T5 does not scale attention scores; its initialization compensates for that.
        let hidden = (hidden + self.out.forward(&attention(&q?, &k?, &v?, c.heads, 1.0, bias)?)?)?;
        let normed = self.ff_norm.forward(&hidden)?;
        let mut inside = self.wi.forward_with(&normed, c.activation)?;
        if let Some(gate) = &self.gate {
            inside = (inside * gate.forward(&normed)?)?;
        }
        Ok((hidden + self.wo.forward(&inside)?)?)
    }
}

/// The T5 encoder.
pub struct T5Encoder {
    config: T5Config,
    embeddings: Tensor,
    relative_bias: Tensor,
    blocks: Vec<Block>,
    final_norm: RmsNorm,
}

impl T5Encoder {
    /// Loads the encoder.
    pub fn load(weights: &Weights, config: T5Config) -> Result<Self> {
        let params = weights.root();
        let encoder = params.at("encoder");
        // Some checkpoints have the table only under the encoder's name.
        let table = if params.has("shared.weight") { params.at("shared") } else { encoder.at("embed_tokens") };
        let bias = encoder.at("block.0.layer.0.SelfAttention.relative_attention_bias");
        Ok(Self {
            embeddings: table.tensor("weight", &[config.vocab_size, config.d_model])?,
            relative_bias: bias.tensor("weight", &[config.buckets, config.heads])?,
            blocks: (0..config.layers)
                .map(|i| Block::load(&encoder.at(format_args!("block.{i}")), &config))
                .collect::<Result<_>>()?,
            final_norm: RmsNorm::load(&encoder.at("final_layer_norm"), config.d_model, config.norm_eps)?,
            config,
        })
    }

    /// Encodes padded tokens to `[b, tokens, d_model]`.
    pub fn encode(&self, tokens: &Tokens) -> Result<Tensor> {
        let device = self.embeddings.device();
        let (batch, length) = (tokens.batch(), tokens.length());
        if let Some(id) = tokens.ids().iter().find(|&&id| id as usize >= self.config.vocab_size) {
            return Err(ModelError::Input(format!(
                "the tokenizer gives token {id}, but the text encoder knows {}",
                self.config.vocab_size
            )));
        }
        let ids = Tensor::from_slice(tokens.ids(), batch * length, device)?;
        let mut hidden = self.embeddings.index_select(&ids, 0)?.reshape((batch, length, self.config.d_model))?;
        let mask = tokens.mask(device)?.reshape((batch, 1, 1, length))?;
        // Large enough that the softmax is exactly zero, small enough not to overflow.
        let padding = ((mask - 1.0)? * 1e30)?;
        let bias = AttentionBias::Scores(self.position_bias(length)?.broadcast_add(&padding)?);
        for block in &self.blocks {
            hidden = block.forward(&hidden, &bias, &self.config)?;
        }
        Ok(self.final_norm.forward(&hidden)?)
    }

    /// The bias of relative positions, `[1, heads, length, length]`.
    fn position_bias(&self, length: usize) -> Result<Tensor> {
        let c = &self.config;
        let buckets: Vec<u32> = (0..length)
            .flat_map(|query| (0..length).map(move |key| (query, key)))
            .map(|(query, key)| bucket(key as i64 - query as i64, c.buckets, c.max_distance))
            .collect();
        let buckets = Tensor::from_vec(buckets, length * length, self.relative_bias.device())?;
        let bias = self.relative_bias.index_select(&buckets, 0)?.reshape((length, length, c.heads))?;
        Ok(bias.permute((2, 0, 1))?.unsqueeze(0)?.to_dtype(DType::F32)?.contiguous()?)
    }
}

/// The bucket of a distance from query to key. Each sign has half of the buckets: one for each distance in the first
/// half of these, then logarithmic ones. (transformers `_relative_position_bucket`, bidirectional.)
fn bucket(distance: i64, buckets: usize, max_distance: usize) -> u32 {
    let half = buckets / 2;
    let offset = if distance > 0 { half } else { 0 };
    let distance = distance.unsigned_abs() as usize;
    let exact = half / 2;
    if distance < exact {
        return (offset + distance) as u32;
    }
    let scaled = (distance as f32 / exact as f32).ln() / (max_distance as f32 / exact as f32).ln();
    let bucket = exact + (scaled * (half - exact) as f32) as usize;
    (offset + bucket.min(half - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_transformers() {
        let found: Vec<u32> = [-200, -128, -20, -8, -7, -1, 0, 1, 7, 8, 12, 16, 33, 64, 90, 91, 127, 500]
            .map(|distance| bucket(distance, 32, 128))
            .to_vec();
        // From T5Attention._relative_position_bucket of transformers 5.23.
        assert_eq!(found, [15, 15, 10, 8, 7, 1, 0, 17, 23, 24, 25, 26, 28, 30, 30, 31, 31, 31]);
    }
}
