//! The transformer layers of CLIP's towers, and their names in checkpoints.

use candle_core::Tensor;

use crate::files::config::Config;
use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::{Activation, AttentionBias, LayerNorm, Linear, attention};

/// Naming scheme of the tensors in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// transformers' `CLIPModel`.
    Transformers,
    /// open_clip's `CLIP`, as in the original CLIP.
    OpenClip,
}

/// Sizes of a tower.
#[derive(Debug, Clone, PartialEq)]
pub struct TowerConfig {
    /// Width of a token.
    pub width: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Number of layers.
    pub layers: usize,
    /// Inner width of the feed-forward layer.
    pub inner: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Epsilon of the norms.
    pub eps: f64,
}

impl TowerConfig {
    pub(super) fn read(config: &Config, defaults: [usize; 4]) -> Result<Self> {
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

/// Self-attention and a feed-forward layer, each preceded by a norm.
pub(super) struct Layer {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Layer {
    fn load(params: &Params<'_>, c: &TowerConfig, naming: Naming) -> Result<Self> {
        let [norm1, heads, norm2, fc1, fc2] = match naming {
            Naming::Transformers => ["layer_norm1", "self_attn", "layer_norm2", "mlp.fc1", "mlp.fc2"],
            Naming::OpenClip => ["ln_1", "attn", "ln_2", "mlp.c_fc", "mlp.c_proj"],
        };
        let heads = params.at(heads);
        Ok(Self {
            norm1: LayerNorm::load(&params.at(norm1), c.width, c.eps)?,
            qkv: match naming {
                Naming::Transformers => {
                    Linear::load_stacked(&heads, &["q_proj", "k_proj", "v_proj"], c.width, c.width, true)?
                }
                Naming::OpenClip => Linear::load_as(&heads, ["in_proj_weight", "in_proj_bias"], c.width, 3 * c.width)?,
            },
            out: Linear::load(&heads.at("out_proj"), c.width, c.width, true)?,
            norm2: LayerNorm::load(&params.at(norm2), c.width, c.eps)?,
            fc1: Linear::load(&params.at(fc1), c.width, c.inner, true)?,
            fc2: Linear::load(&params.at(fc2), c.inner, c.width, true)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor, bias: &AttentionBias, c: &TowerConfig) -> Result<Tensor> {
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * c.width, c.width));
        let scale = 1.0 / ((c.width / c.heads) as f64).sqrt();
        let x = (x + self.out.forward(&attention(&q?, &k?, &v?, c.heads, scale, bias)?)?)?;
        let inside = self.fc1.forward_with(&self.norm2.forward(&x)?, c.activation)?;
        Ok((x + self.fc2.forward(&inside)?)?)
    }
}

pub(super) fn load_layers(params: &Params<'_>, c: &TowerConfig, naming: Naming) -> Result<Vec<Layer>> {
    let layers = params.at(match naming {
        Naming::Transformers => "encoder.layers",
        Naming::OpenClip => "transformer.resblocks",
    });
    (0..c.layers).map(|i| Layer::load(&layers.at(i), c, naming)).collect()
}
