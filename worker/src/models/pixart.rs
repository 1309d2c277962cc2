//! PixArt-α and PixArt-Σ (arXiv 2310.00426, 2403.04692): diffusers' `PixArtTransformer2DModel`.
//!
//! Weights: `PixArt-alpha/PixArt-XL-2-512x512`, `PixArt-alpha/PixArt-Sigma-XL-2-1024-MS`, folder `transformer`.
//! Names and order of the parts are those of the checkpoint. Cacheable components: `attn1` (self-attention), `attn2`
//! (cross-attention to the caption), `ff`.
//!
//! Differences from diffusers that do not change results: queries, keys and values come from one matrix product; the
//! timestep is embedded once for the batch; the caption is projected once per generation; the channels of the learned
//! variance are dropped.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use evocache_proto::domain::{CostModel, Layout, Slot};

use super::block_model::{Activations, BlockModel, Conditioned, Conditioning, Geometry, LatentSize, State};
use super::embeddings::{TextProjection, positions};
use super::feed_forward::FeedForward;
use super::patches::{check_latents, grid, unpatch};
use super::pipelines::GENERAL_TRANSFORMER;
use super::pixart_embeddings::AdaLayerNormSingle;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;
use crate::files::weights::{Params, WeightSize, Weights};
use crate::layers::{Activation, AttentionBias, Conv2d, Linear, attention, gated_add, layer_norm_modulated};

/// Number of components of a block; the constants below are their indices, in the order in which they run.
const COMPONENTS: usize = 3;
const ATTN1: usize = 0;
const ATTN2: usize = 1;
const FF: usize = 2;

/// Epsilon of the last norm, fixed in diffusers.
const FINAL_EPS: f64 = 1e-6;

/// The settings in `transformer/config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct PixArtConfig {
    /// Number of attention heads.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the output; those above `in_channels` are a learned variance.
    pub out_channels: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Width of the keys and values of cross-attention.
    pub cross_dim: usize,
    /// Whether queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Latent rows and columns of the model's native size.
    pub sample_size: usize,
    /// Side of a patch in latent pixels.
    pub patch: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Epsilon of the blocks' norms.
    pub norm_eps: f64,
    /// Divisor of the positions (`interpolation_scale`).
    pub interpolation: f64,
    /// Whether the image size is part of the timestep embedding.
    pub sized: bool,
    /// Channels of the text embeddings, if they are projected.
    pub caption_channels: Option<usize>,
}

impl PixArtConfig {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        let own = "PixArtTransformer2DModel";
        if config.choice("_class_name", own, &[own, GENERAL_TRANSFORMER])? == GENERAL_TRANSFORMER {
            config.text("norm_type")?;
        }
        fields::check(config, own)?;
        let name = config.text_or("activation_fn", "gelu-approximate")?;
        let activation = match name {
            "gelu-approximate" | "gelu" => Activation::from_name(name),
            _ => None,
        }
        .ok_or_else(|| config.unsupported("activation_fn", name, "gelu-approximate, gelu"))?;
        let heads = config.size_or("num_attention_heads", 16)?;
        let head_dim = config.size_or("attention_head_dim", 72)?;
        if !(heads * head_dim).is_multiple_of(4) {
            let found = format!("{heads} heads of {head_dim}");
            return Err(config.wrong("attention_head_dim", "a width that is a multiple of 4", found));
        }
        let in_channels = config.size_or("in_channels", 4)?;
        let out_channels = config.size_or("out_channels", 8)?;
        if out_channels < in_channels {
            let expected = format!("at least in_channels = {in_channels}");
            return Err(config.wrong("out_channels", expected, out_channels.to_string()));
        }
        let sample_size = config.size_or("sample_size", 128)?;
        let patch = config.size_or("patch_size", 2)?;
        if !sample_size.is_multiple_of(patch) {
            return Err(config.wrong("sample_size", format!("a multiple of {patch}"), sample_size.to_string()));
        }
        let width = heads * head_dim;
        let cross_dim = config.size_or("cross_attention_dim", 1152)?;
        let caption_channels = config.size_opt("caption_channels")?;
        if caption_channels.is_some() && cross_dim != width {
            let expected = format!("{width}, the width of the projected captions");
            return Err(config.wrong("cross_attention_dim", expected, cross_dim.to_string()));
        }
        let sized = match config.has("use_additional_conditions") {
            true => config.flag_or("use_additional_conditions", false)?,
            false => sample_size == 128,
        };
        if sized && !width.is_multiple_of(3) {
            return Err(config.wrong(
                "use_additional_conditions",
                "a width that is a multiple of 3",
                width.to_string(),
            ));
        }
        Ok(Self {
            heads,
            head_dim,
            in_channels,
            out_channels,
            layers: config.size_or("num_layers", 28)?,
            cross_dim,
            attention_bias: config.flag_or("attention_bias", true)?,
            sample_size,
            patch,
            activation,
            norm_eps: config.number_or("norm_eps", 1e-6)?,
            interpolation: match config.number_opt("interpolation_scale")? {
                Some(scale) if scale > 0.0 => scale,
                Some(scale) => {
                    return Err(config.wrong("interpolation_scale", "a positive number", scale.to_string()));
                }
                None => (sample_size / 64).max(1) as f64,
            },
            sized,
            caption_channels,
        })
    }

    /// Width of a token.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }
}

struct SelfAttention {
    qkv: Linear,
    out: Linear,
}

struct CrossAttention {
    q: Linear,
    kv: Linear,
    out: Linear,
}

struct Block {
    attn1: SelfAttention,
    attn2: CrossAttention,
    ff: FeedForward,
    scale_shift_table: Tensor,
}

impl Block {
    fn load(params: &Params<'_>, config: &PixArtConfig) -> Result<Self> {
        let (width, bias) = (config.width(), config.attention_bias);
        let (attn1, attn2) = (params.at("attn1"), params.at("attn2"));
        Ok(Self {
            attn1: SelfAttention {
                qkv: Linear::load_stacked(&attn1, &["to_q", "to_k", "to_v"], width, width, bias)?,
                out: Linear::load(&attn1.at("to_out.0"), width, width, true)?,
            },
            attn2: CrossAttention {
                q: Linear::load(&attn2.at("to_q"), width, width, bias)?,
                kv: Linear::load_stacked(&attn2, &["to_k", "to_v"], config.cross_dim, width, bias)?,
                out: Linear::load(&attn2.at("to_out.0"), width, width, true)?,
            },
            ff: FeedForward::load(&params.at("ff"), width, config.activation)?,
            scale_shift_table: params.tensor("scale_shift_table", &[6, width])?.reshape((1, 6, width))?,
        })
    }
}

/// The PixArt transformer.
pub struct PixArt {
    config: PixArtConfig,
    layout: Arc<Layout>,
    weight_size: WeightSize,
    pos_embed: Conv2d,
    adaln_single: AdaLayerNormSingle,
    caption_projection: Option<TextProjection>,
    transformer_blocks: Vec<Block>,
    scale_shift_table: Tensor,
    proj_out: Linear,
    device: Device,
    dtype: DType,
}

impl PixArt {
    /// Loads the transformer.
    pub fn load(weights: &Weights, config: PixArtConfig) -> Result<Self> {
        let params = weights.root();
        let width = config.width();
        let layout = u32::try_from(config.layers)
            .ok()
            .and_then(|blocks| Layout::pixart(blocks).ok())
            .ok_or_else(|| ModelError::Input(format!("{} blocks are more than a layout can hold", config.layers)))?;
        let caption_projection = match config.caption_channels {
            Some(channels) => {
                let params = params.at("caption_projection");
                Some(TextProjection::load(&params, channels, width, Activation::GeluTanh)?)
            }
            None => None,
        };
        Ok(Self {
            layout: Arc::new(layout),
            weight_size: weights.size(|_| true),
            pos_embed: Conv2d::load_patches(
                &params.at("pos_embed.proj"),
                config.in_channels,
                width,
                config.patch,
                true,
            )?,
            adaln_single: AdaLayerNormSingle::load(&params.at("adaln_single"), width, config.sized)?,
            caption_projection,
            transformer_blocks: (0..config.layers)
                .map(|i| Block::load(&params.at(format_args!("transformer_blocks.{i}")), &config))
                .collect::<Result<_>>()?,
            scale_shift_table: params.tensor("scale_shift_table", &[2, width])?.reshape((1, 2, width))?,
            proj_out: Linear::load(&params.at("proj_out"), width, config.patch.pow(2) * config.out_channels, true)?,
            device: params.device().clone(),
            dtype: params.dtype(),
            config,
        })
    }

    /// The config of the transformer.
    pub fn config(&self) -> &PixArtConfig {
        &self.config
    }
}

impl BlockModel for PixArt {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn latent_channels(&self) -> usize {
        self.config.in_channels
    }

    fn image_tokens(&self, size: LatentSize) -> Result<usize> {
        grid(size, self.config.patch).map(|(rows, columns)| rows * columns)
    }

    fn weight_size(&self) -> WeightSize {
        self.weight_size
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn cost(&self, geometry: &Geometry) -> CostModel {
        let c = &self.config;
        let passes = if geometry.guided { 2 } else { 1 };
        let width = c.width() as u64;
        let patches = (geometry.size.height / c.patch * (geometry.size.width / c.patch)) as u64;
        let (captions, cross) = (geometry.tokens as u64, c.cross_dim as u64);
        let square = width * width;
        let attn1 = patches * 4 * square + 2 * patches * patches * width;
        let attn2 = patches * 2 * square + captions * 2 * cross * width + 2 * patches * captions * width;
        let ff = patches * FeedForward::macs(width);
        let patch_values = (c.patch * c.patch) as u64;
        let embed = patches * patch_values * (c.in_channels + c.out_channels) as u64 * width;
        let projection = c.caption_channels.map_or(0, |channels| captions * TextProjection::macs(channels, c.width()));
        let per_block = [attn1, attn2, ff].map(|macs| macs * passes);
        CostModel {
            slot_macs: per_block.into_iter().cycle().take(self.layout.slots()).collect(),
            slot_cache_bytes: vec![patches * width * self.dtype.size_in_bytes() as u64 * passes; self.layout.slots()],
            step_macs: embed * passes + self.adaln_single.macs(c.width()),
            image_macs: projection * passes,
        }
    }

    fn activations(&self, geometry: &Geometry) -> Activations {
        let c = &self.config;
        let (passes, width) = (if geometry.guided { 2 } else { 1 }, c.width() as u64);
        let patches = (geometry.size.height / c.patch * (geometry.size.width / c.patch)) as u64;
        let captions = geometry.tokens as u64 * (width + c.caption_channels.unwrap_or(0) as u64);
        let bytes = self.dtype.size_in_bytes() as u64;
        let stream = patches * width;
        // attn1: q, k, v, attention, output. attn2: the same, with k and v of the text. ff: norm, inner layer, output.
        let text = geometry.tokens as u64 * width;
        let slots =
            [(3 + 1 + 1) * stream, (1 + 1 + 1) * stream + 2 * text, (1 + 4 + 1) * stream].map(|n| n * passes * bytes);
        Activations {
            shared: bytes * (patches * width + (6 * c.layers as u64 + 6) * width),
            per_image: bytes * passes * (stream + captions),
            slots: slots.into_iter().cycle().take(self.layout.slots()).collect(),
        }
    }

    fn condition<'a>(&'a self, conditioning: &Conditioning) -> Result<Box<dyn Conditioned + 'a>> {
        let (rows, columns) = grid(conditioning.size, self.config.patch)?;
        let prompts = &conditioning.prompts.to_dtype(self.dtype)?;
        let (embeddings, _) =
            prompts.expect_embeddings(self.config.caption_channels.unwrap_or(self.config.cross_dim))?;
        let mask = prompts.expect_mask()?;
        let captions = match &self.caption_projection {
            Some(projection) => projection.forward(embeddings)?,
            None => embeddings.clone(),
        };
        let base = (self.config.sample_size / self.config.patch) as f64;
        Ok(Box::new(Captioned {
            model: self,
            captions,
            // As in diffusers: 0 for a token, -10000 for padding.
            bias: AttentionBias::Keys(((mask - 1.0)? * 10000.0)?.to_dtype(self.dtype)?),
            positions: positions(rows, columns, self.config.width(), base, self.config.interpolation, &self.device)?
                .to_dtype(self.dtype)?,
            size: conditioning.size,
        }))
    }
}

/// The model bound to captions and an image size.
struct Captioned<'a> {
    model: &'a PixArt,
    captions: Tensor,
    bias: AttentionBias,
    positions: Tensor,
    size: LatentSize,
}

impl Conditioned for Captioned<'_> {
    fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>> {
        let (model, size) = (self.model, self.size);
        check_latents(latents, self.captions.dim(0)?, model.config.in_channels, size)?;
        let patches =
            model.pos_embed.forward(&latents.to_dtype(model.dtype)?)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let (modulation, embedded) =
            model.adaln_single.forward(timestep, size.height * size.scale, size.width * size.scale)?;
        let modulation = model
            .transformer_blocks
            .iter()
            .map(|block| Ok((&block.scale_shift_table + &modulation)?))
            .collect::<Result<_>>()?;
        Ok(Box::new(Forward { bound: self, hidden: patches.broadcast_add(&self.positions)?, modulation, embedded }))
    }
}

/// One forward pass: the residual stream and the modulations of this timestep.
struct Forward<'a> {
    bound: &'a Captioned<'a>,
    hidden: Tensor,
    /// Per block `[1, 6, width]`: shift, scale and gate of attn1, then of ff.
    modulation: Vec<Tensor>,
    embedded: Tensor,
}

impl Forward<'_> {
    fn block(&self, slot: Slot) -> Result<(&Block, &Tensor)> {
        let i = slot.block as usize;
        match (self.bound.model.transformer_blocks.get(i), self.modulation.get(i)) {
            (Some(block), Some(modulation)) if slot.group == 0 && slot.component < COMPONENTS => {
                Ok((block, modulation))
            }
            _ => Err(ModelError::Input(format!("the model has no slot {slot:?}"))),
        }
    }

    fn modulated(&self, modulation: &Tensor, shift: usize) -> Result<Tensor> {
        let (shift, scale) = (modulation.narrow(1, shift, 1)?, modulation.narrow(1, shift + 1, 1)?);
        Ok(layer_norm_modulated(&self.hidden, &shift, &scale, self.bound.model.config.norm_eps)?)
    }
}

impl State for Forward<'_> {
    fn run(&self, slot: Slot) -> Result<Tensor> {
        let (block, modulation) = self.block(slot)?;
        let config = &self.bound.model.config;
        let (heads, width) = (config.heads, config.width());
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        let output = match slot.component {
            ATTN1 => {
                let qkv = block.attn1.qkv.forward(&self.modulated(modulation, 0)?)?;
                let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * width, width));
                block.attn1.out.forward(&attention(&q?, &k?, &v?, heads, scale, &AttentionBias::None)?)?
            }
            ATTN2 => {
                let q = block.attn2.q.forward(&self.hidden)?;
                let kv = block.attn2.kv.forward(&self.bound.captions)?;
                let [k, v] = [0, 1].map(|i| kv.narrow(2, i * width, width));
                block.attn2.out.forward(&attention(&q, &k?, &v?, heads, scale, &self.bound.bias)?)?
            }
            _ => block.ff.forward(&self.modulated(modulation, 3)?)?,
        };
        Ok(output)
    }

    fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()> {
        let (_, modulation) = self.block(slot)?;
        self.hidden = match slot.component {
            ATTN2 => (&self.hidden + output)?,
            FF => gated_add(&self.hidden, &modulation.narrow(1, 5, 1)?, output)?,
            _ => gated_add(&self.hidden, &modulation.narrow(1, 2, 1)?, output)?,
        };
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Tensor> {
        let (model, size) = (self.bound.model, self.bound.size);
        let PixArtConfig { patch, in_channels, out_channels, .. } = model.config;
        let table = model.scale_shift_table.broadcast_add(&self.embedded)?;
        let normed = layer_norm_modulated(&self.hidden, &table.narrow(1, 0, 1)?, &table.narrow(1, 1, 1)?, FINAL_EPS)?;
        unpatch(&model.proj_out.forward(&normed)?, size, patch, out_channels, in_channels)
    }
}
