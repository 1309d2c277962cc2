//! CLIP's text tower: transformers' `CLIPTextModel`, `CLIPTextModelWithProjection` and the text part of `CLIPModel`.
//!
//! Weights: folder `text_encoder` of FLUX and SD3 (CLIP-L), `text_encoder_2` of SD3 (OpenCLIP-G).

use candle_core::{IndexOp, Tensor};

use super::clip_layers::{Layer, Naming, TowerConfig, load_layers};
use super::tokenizer::Tokens;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;
use crate::files::weights::{Params, Weights};
use crate::layers::{AttentionBias, LayerNorm, Linear};

/// The settings in `config.json`, or in its `text_config`. Defaults are transformers'.
#[derive(Debug, Clone, PartialEq)]
pub struct TextConfig {
    /// Sizes of the layers.
    pub tower: TowerConfig,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Most tokens per text.
    pub max_tokens: usize,
    /// The token at whose first position a text is pooled; 2 means the largest id, as in transformers.
    pub eos_token: i64,
}

impl TextConfig {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        fields::check(config, "CLIPTextConfig")?;
        Ok(Self {
            vocab_size: config.size_or("vocab_size", 49408)?,
            max_tokens: config.size_or("max_position_embeddings", 77)?,
            eos_token: config.integer_or("eos_token_id", 49407)?,
            tower: TowerConfig::read(config, [512, 8, 12, 2048])?,
        })
    }
}

/// Whether padding is attended. Attention is causal, so this only affects tokens at or after padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Padding is masked, as in transformers with an attention mask.
    Masked,
    /// Padding is attended like text, as in diffusers' pipelines.
    Attended,
}

/// The hidden states of texts.
pub struct TextStates {
    /// The input of the last layer, `[b, tokens, width]`.
    pub penultimate: Tensor,
    /// The states after the last layer and the final norm, `[b, tokens, width]`.
    pub last: Tensor,
}

/// The text tower: embeddings, layers and final norm.
pub struct TextTower {
    config: TextConfig,
    token_embedding: Tensor,
    positions: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
}

impl TextTower {
    /// Loads the tower from `params` below `text_model`, or from all of open_clip's.
    pub fn load(params: &Params<'_>, config: TextConfig, naming: Naming) -> Result<Self> {
        let c = &config.tower;
        let (embeddings, norm) = match naming {
            Naming::Transformers => (params.at("embeddings"), "final_layer_norm"),
            Naming::OpenClip => (params.clone(), "ln_final"),
        };
        let places = [config.max_tokens, c.width];
        Ok(Self {
            token_embedding: embeddings.at("token_embedding").tensor("weight", &[config.vocab_size, c.width])?,
            positions: match naming {
                Naming::Transformers => embeddings.at("position_embedding").tensor("weight", &places)?,
                Naming::OpenClip => params.tensor("positional_embedding", &places)?,
            },
            layers: load_layers(params, c, naming)?,
            final_layer_norm: LayerNorm::load(&params.at(norm), c.width, c.eps)?,
            config,
        })
    }

    /// Encodes padded tokens.
    pub fn forward(&self, tokens: &Tokens, padding: Padding) -> Result<TextStates> {
        let c = &self.config;
        let (batch, length, device) = (tokens.batch(), tokens.length(), self.token_embedding.device());
        if length > c.max_tokens {
            return Err(ModelError::Input(format!("{length} tokens per text, but CLIP takes {}", c.max_tokens)));
        }
        if let Some(id) = tokens.ids().iter().find(|&&id| id as usize >= c.vocab_size) {
            return Err(ModelError::Input(format!("the tokenizer gives token {id}, but CLIP knows {}", c.vocab_size)));
        }
        let ids = Tensor::from_slice(tokens.ids(), batch * length, device)?;
        let mut x = self
            .token_embedding
            .index_select(&ids, 0)?
            .reshape((batch, length, c.tower.width))?
            .broadcast_add(&self.positions.narrow(0, 0, length)?.unsqueeze(0)?)?;
        let causal: Vec<f32> =
            (0..length * length).map(|i| if i % length > i / length { -1e30 } else { 0.0 }).collect();
        let causal = Tensor::from_vec(causal, (1, 1, length, length), device)?;
        let bias = AttentionBias::Scores(match padding {
            Padding::Attended => causal,
            Padding::Masked => {
                let padding = ((tokens.mask(device)?.reshape((batch, 1, 1, length))? - 1.0)? * 1e30)?;
                causal.broadcast_add(&padding)?
            }
        });
        let mut penultimate = x.clone();
        for layer in &self.layers {
            penultimate = x;
            x = layer.forward(&penultimate, &bias, &c.tower)?;
        }
        Ok(TextStates { penultimate, last: self.final_layer_norm.forward(&x)? })
    }

    /// The state that represents each text, `[b, width]`.
    pub fn pool(&self, last: &Tensor, tokens: &Tokens) -> Result<Tensor> {
        let eos = self.config.eos_token;
        let pooled: Vec<Tensor> = tokens
            .ids()
            .chunks_exact(tokens.length())
            .enumerate()
            .map(|(row, ids)| Ok(last.i((row, pooled_position(ids, eos)))?))
            .collect::<Result<_>>()?;
        Ok(Tensor::stack(&pooled, 0)?)
    }
}

/// A separate text encoder: a text tower, with a projection of the pooled state in `CLIPTextModelWithProjection`.
pub struct ClipTextEncoder {
    tower: TextTower,
    projection: Option<Linear>,
}

impl ClipTextEncoder {
    /// Loads `CLIPTextModel`, or `CLIPTextModelWithProjection` if `projected`.
    pub fn load(weights: &Weights, config: &Config, projected: bool) -> Result<Self> {
        config.choice("model_type", "clip_text_model", &["clip_text_model", "clip"])?;
        let text = TextConfig::read(config)?;
        let (params, width) = (weights.root(), text.tower.width);
        let projection = if projected {
            let size = config.size_or("projection_dim", 512)?;
            Some(Linear::load(&params.at("text_projection"), width, size, false)?)
        } else {
            None
        };
        // Newer releases of transformers save tensors without the prefix `text_model`.
        let bare = params.has("embeddings.token_embedding.weight");
        let tower = TextTower::load(&if bare { params } else { params.at("text_model") }, text, Naming::Transformers)?;
        Ok(Self { tower, projection })
    }

    /// The input of the last layer, `[b, tokens, width]`, and the pooled vector of each text, `[b, channels]`.
    pub fn encode(&self, tokens: &Tokens) -> Result<(Tensor, Tensor)> {
        let states = self.tower.forward(tokens, Padding::Attended)?;
        let pooled = self.tower.pool(&states.last, tokens)?;
        let pooled = match &self.projection {
            Some(projection) => projection.forward(&pooled)?,
            None => pooled,
        };
        Ok((states.penultimate, pooled))
    }
}

/// Position at which a text is pooled: the first end token, or 0 if there is none. If the config names token 2, it is
/// the first largest id, as in transformers, because the original checkpoints have a wrong `eos_token_id`.
fn pooled_position(ids: &[u32], eos: i64) -> usize {
    if eos == 2 {
        let largest = ids.iter().max();
        ids.iter().position(|id| Some(id) == largest).unwrap_or(0)
    } else {
        ids.iter().position(|&id| i64::from(id) == eos).unwrap_or(0)
    }
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
