//! FLUX.1-dev and FLUX.1-schnell: diffusers' `FluxTransformer2DModel`.
//!
//! Weights: `black-forest-labs/FLUX.1-dev`, `black-forest-labs/FLUX.1-schnell`, folder `transformer`. Names and order
//! of the parts are those of the checkpoint. Cacheable components: in a double block `attn` (the outputs of both
//! streams, text first, as one tensor), `ff` (image) and `ff_context` (text); in a single block `attn`, `proj_mlp`
//! (before its activation) and `proj_out`, the only one that reads the other two.
//!
//! Differences from diffusers that do not change results: latents are packed here, so sampler and executor see
//! `[b, c, h, w]`; the streams are joined once, before the first single block; everything that depends only on the
//! prompt is computed once per generation.
//!
//! Not implemented: true classifier-free guidance, image prompts, ControlNets, inpainting variants.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use evocache_proto::domain::{CostModel, Layout, Slot};

use super::block_model::{
    Activations, BlockModel, Conditioned, Conditioning, Geometry, GuidanceKind, LatentSize, State,
};
use super::embeddings::{NumberEmbedding, Spread, TextProjection};
use super::feed_forward::FeedForward;
use super::joint_attention::{ADDED, Heads, OWN, Projections};
use super::modulation::{Modulation, ModulationLayer};
use super::patches::{check_latents, grid};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;
use crate::files::weights::{Params, WeightSize, Weights};
use crate::layers::{Activation, Linear};

/// Side of the square of latent pixels packed into one token.
const PACK: usize = 2;

/// Scale of timesteps and guidance scales when they are embedded, as in diffusers.
const THOUSAND: f32 = 1000.0;

/// Base of the frequencies of the rotary positions.
const THETA: f64 = 10000.0;

const DOUBLE: usize = 0;
const ATTN: usize = 0;
const FF: usize = 1;
const PROJ_MLP: usize = 1;
const LAST: usize = 2;

/// The settings in `transformer/config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct FluxConfig {
    /// Number of attention heads.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Number of double blocks.
    pub doubles: usize,
    /// Number of single blocks.
    pub singles: usize,
    /// Channels of the text embeddings.
    pub text_channels: usize,
    /// Channels of the pooled text embedding.
    pub pooled_channels: usize,
    /// Whether the guidance scale is an input (FLUX.1-dev).
    pub guided: bool,
    /// Channels of a head that encode each of a token's three coordinates.
    pub axes: [usize; 3],
}

impl FluxConfig {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        let own = config.choice("_class_name", "FluxTransformer2DModel", &["FluxTransformer2DModel"])?;
        fields::check(config, own)?;
        let in_channels = config.size_or("in_channels", 64)?;
        if !in_channels.is_multiple_of(PACK * PACK) {
            return Err(config.wrong("in_channels", "a multiple of 4", in_channels.to_string()));
        }
        let out_channels = config.size_or("out_channels", in_channels)?;
        if out_channels != in_channels {
            return Err(config.unsupported("out_channels", out_channels, &in_channels.to_string()));
        }
        let head_dim = config.size_or("attention_head_dim", 128)?;
        let axes = if config.has("axes_dims_rope") { config.sizes("axes_dims_rope")? } else { vec![16, 56, 56] };
        let axes = match axes[..] {
            [a, b, c] if a + b + c == head_dim && axes.iter().all(|n| n % 2 == 0) => [a, b, c],
            _ => {
                let expected = format!("three even numbers that add up to attention_head_dim = {head_dim}");
                return Err(config.wrong("axes_dims_rope", expected, format!("{axes:?}")));
            }
        };
        Ok(Self {
            heads: config.size_or("num_attention_heads", 24)?,
            head_dim,
            latent_channels: in_channels / (PACK * PACK),
            doubles: config.size_or("num_layers", 19)?,
            singles: config.size_or("num_single_layers", 38)?,
            text_channels: config.size_or("joint_attention_dim", 4096)?,
            pooled_channels: config.size_or("pooled_projection_dim", 768)?,
            guided: config.flag_or("guidance_embeds", false)?,
            axes,
        })
    }

    /// Width of a token.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }
}

struct DoubleBlock {
    norm1: ModulationLayer,
    norm1_context: ModulationLayer,
    image: Projections,
    text: Projections,
    to_out: Linear,
    to_add_out: Linear,
    ff: FeedForward,
    ff_context: FeedForward,
}

impl DoubleBlock {
    fn load(params: &Params<'_>, heads: Heads) -> Result<Self> {
        let (width, attn) = (heads.width(), params.at("attn"));
        Ok(Self {
            norm1: ModulationLayer::load(&params.at("norm1.linear"), width, 6)?,
            norm1_context: ModulationLayer::load(&params.at("norm1_context.linear"), width, 6)?,
            image: Projections::load(&attn, &OWN, heads, true)?,
            text: Projections::load(&attn, &ADDED, heads, true)?,
            to_out: Linear::load(&attn.at("to_out.0"), width, width, true)?,
            to_add_out: Linear::load(&attn.at("to_add_out"), width, width, true)?,
            ff: FeedForward::load(&params.at("ff"), width, Activation::GeluTanh)?,
            ff_context: FeedForward::load(&params.at("ff_context"), width, Activation::GeluTanh)?,
        })
    }
}

struct SingleBlock {
    norm: ModulationLayer,
    attn: Projections,
    proj_mlp: Linear,
    proj_out: Linear,
}

impl SingleBlock {
    fn load(params: &Params<'_>, heads: Heads) -> Result<Self> {
        let width = heads.width();
        Ok(Self {
            norm: ModulationLayer::load(&params.at("norm.linear"), width, 3)?,
            attn: Projections::load(&params.at("attn"), &OWN, heads, true)?,
            proj_mlp: Linear::load(&params.at("proj_mlp"), width, 4 * width, true)?,
            proj_out: Linear::load(&params.at("proj_out"), 5 * width, width, true)?,
        })
    }
}

/// The FLUX.1 transformer.
pub struct Flux {
    config: FluxConfig,
    layout: Arc<Layout>,
    weight_size: WeightSize,
    x_embedder: Linear,
    context_embedder: Linear,
    timestep_embedder: NumberEmbedding,
    guidance_embedder: Option<NumberEmbedding>,
    text_embedder: TextProjection,
    doubles: Vec<DoubleBlock>,
    singles: Vec<SingleBlock>,
    norm_out: ModulationLayer,
    proj_out: Linear,
    device: Device,
    dtype: DType,
}

impl Flux {
    /// Loads the transformer.
    pub fn load(weights: &Weights, config: FluxConfig) -> Result<Self> {
        let params = weights.root();
        let heads = Heads { count: config.heads, dim: config.head_dim };
        let (width, embed) = (config.width(), params.at("time_text_embed"));
        let blocks = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let layout = Layout::flux(blocks(config.doubles), blocks(config.singles)).map_err(|error| {
            ModelError::Input(format!("{} double and {} single blocks: {error}", config.doubles, config.singles))
        })?;
        let packed = PACK * PACK * config.latent_channels;
        Ok(Self {
            layout: Arc::new(layout),
            weight_size: weights.size(|_| true),
            x_embedder: Linear::load(&params.at("x_embedder"), packed, width, true)?,
            context_embedder: Linear::load(&params.at("context_embedder"), config.text_channels, width, true)?,
            timestep_embedder: NumberEmbedding::load(&embed.at("timestep_embedder"), width, Spread::Open)?,
            guidance_embedder: if config.guided {
                Some(NumberEmbedding::load(&embed.at("guidance_embedder"), width, Spread::Open)?)
            } else {
                None
            },
            text_embedder: TextProjection::load(
                &embed.at("text_embedder"),
                config.pooled_channels,
                width,
                Activation::Silu,
            )?,
            doubles: (0..config.doubles)
                .map(|i| DoubleBlock::load(&params.at(format_args!("transformer_blocks.{i}")), heads))
                .collect::<Result<_>>()?,
            singles: (0..config.singles)
                .map(|i| SingleBlock::load(&params.at(format_args!("single_transformer_blocks.{i}")), heads))
                .collect::<Result<_>>()?,
            norm_out: ModulationLayer::load(&params.at("norm_out.linear"), width, 2)?,
            proj_out: Linear::load(&params.at("proj_out"), width, packed, true)?,
            device: params.device().clone(),
            dtype: params.dtype(),
            config,
        })
    }

    /// The config of the transformer.
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    fn heads(&self) -> Heads {
        Heads { count: self.config.heads, dim: self.config.head_dim }
    }

    /// Cosines and sines `[tokens + rows · columns, head_dim / 2]` of the positions: (0, 0, 0) for text tokens,
    /// (0, row, column) for image tokens.
    fn rotation(&self, tokens: usize, rows: usize, columns: usize) -> Result<(Tensor, Tensor)> {
        let places = std::iter::repeat_n([0; 3], tokens)
            .chain((0..rows).flat_map(|row| (0..columns).map(move |column| [0, row, column])));
        let angles: Vec<f64> = places
            .flat_map(|place| {
                self.config.axes.iter().zip(place).flat_map(|(&axis, position)| {
                    (0..axis / 2).map(move |i| position as f64 / THETA.powf(2.0 * i as f64 / axis as f64))
                })
            })
            .collect();
        let shape = (tokens + rows * columns, self.config.head_dim / 2);
        let tensor = |turn: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| turn(angle) as f32).collect();
            Tensor::from_vec(values, shape, &self.device)?.to_dtype(self.dtype)
        };
        Ok((tensor(f64::cos)?, tensor(f64::sin)?))
    }
}

impl BlockModel for Flux {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    fn guidance(&self) -> GuidanceKind {
        GuidanceKind::Distilled
    }

    fn image_tokens(&self, size: LatentSize) -> Result<usize> {
        grid(size, PACK).map(|(rows, columns)| rows * columns)
    }

    fn weight_size(&self) -> WeightSize {
        self.weight_size
    }

    fn dtype(&self) -> DType {
        self.dtype
    }

    fn cost(&self, geometry: &Geometry) -> CostModel {
        let c = &self.config;
        let width = c.width() as u64;
        let image = (geometry.size.height / PACK * (geometry.size.width / PACK)) as u64;
        let text = geometry.tokens as u64;
        let (all, square) = (image + text, width * width);
        let scores = 2 * all * all * width;
        let double = [
            (all * 4 * square + scores, all * width),
            (image * FeedForward::macs(width), image * width),
            (text * FeedForward::macs(width), text * width),
        ];
        let single = [
            (all * 3 * square + scores, all * width),
            (all * 4 * square, all * 4 * width),
            (all * 5 * square, all * width),
        ];
        let per_slot: Vec<(u64, u64)> = (0..self.layout.slots())
            .map(|index| {
                let slot = self.layout.slot(index);
                if slot.group == DOUBLE { double[slot.component] } else { single[slot.component] }
            })
            .collect();
        let numbers = 1 + u64::from(c.guided);
        let modulations: u64 = self.doubles.iter().map(|block| block.norm1.macs() + block.norm1_context.macs()).sum();
        let modulations = modulations + self.singles.iter().map(|block| block.norm.macs()).sum::<u64>();
        let packed = (PACK * PACK * c.latent_channels) as u64;
        CostModel {
            slot_macs: per_slot.iter().map(|&(macs, _)| macs).collect(),
            slot_cache_bytes: per_slot.iter().map(|&(_, values)| self.dtype.size_in_bytes() as u64 * values).collect(),
            step_macs: 2 * image * packed * width
                + modulations
                + self.norm_out.macs()
                + NumberEmbedding::macs(c.width()),
            image_macs: text * c.text_channels as u64 * width
                + TextProjection::macs(c.pooled_channels, c.width())
                + (numbers - 1) * NumberEmbedding::macs(c.width()),
        }
    }

    fn activations(&self, geometry: &Geometry) -> Activations {
        let c = &self.config;
        let width = c.width() as u64;
        let image = (geometry.size.height / PACK * (geometry.size.width / PACK)) as u64;
        let text = geometry.tokens as u64;
        let all = image + text;
        let bytes = self.dtype.size_in_bytes() as u64;
        // Attention of a double block: projections and normalized queries and keys of each stream (5), joined (3),
        // rotated (2). proj_out: the activation of proj_mlp (4), and both inputs joined (5).
        let double = [(5 + 3 + 2) * all, (1 + 4 + 1) * image, (1 + 4 + 1) * text];
        let single = [(1 + 3 + 1 + 2) * all, (1 + 4) * all, (4 + 5) * all];
        let slots = (0..self.layout.slots()).map(|index| {
            let slot = self.layout.slot(index);
            let tokens = if slot.group == DOUBLE { double[slot.component] } else { single[slot.component] };
            bytes * tokens * width
        });
        let stream = all * width;
        let modulations = (12 * c.doubles + 3 * c.singles + 2) as u64 * width;
        Activations {
            shared: bytes * all * c.head_dim as u64,
            per_image: bytes * (stream + modulations + text * (width + c.text_channels as u64)),
            slots: slots.collect(),
        }
    }

    fn condition<'a>(&'a self, conditioning: &Conditioning) -> Result<Box<dyn Conditioned + 'a>> {
        let (rows, columns) = grid(conditioning.size, PACK)?;
        let prompts = &conditioning.prompts.to_dtype(self.dtype)?;
        let (embeddings, tokens) = prompts.expect_embeddings(self.config.text_channels)?;
        let pooled = prompts.expect_pooled(embeddings.dim(0)?, self.config.pooled_channels)?;
        let mut embedded = self.text_embedder.forward(pooled)?;
        if let Some(embedder) = &self.guidance_embedder {
            let scale = conditioning.guidance.ok_or_else(|| {
                ModelError::Input("the transformer needs the guidance scale as an input, but was given none".into())
            })?;
            let guidance = embedder.forward(f64::from(scale as f32 * THOUSAND), &self.device)?;
            embedded = embedded.broadcast_add(&guidance)?;
        }
        let (cos, sin) = self.rotation(tokens, rows, columns)?;
        Ok(Box::new(Prompted {
            model: self,
            text: self.context_embedder.forward(embeddings)?,
            embedded,
            cos,
            sin,
            size: conditioning.size,
        }))
    }
}

/// The model bound to prompts and an image size.
struct Prompted<'a> {
    model: &'a Flux,
    /// The text stream before the first block, `[b, tokens, width]`.
    text: Tensor,
    /// Embedding of prompt and guidance, added to that of the timestep, `[b, width]`.
    embedded: Tensor,
    cos: Tensor,
    sin: Tensor,
    size: LatentSize,
}

impl Conditioned for Prompted<'_> {
    fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>> {
        let (model, size) = (self.model, self.size);
        let (batch, channels) = (self.text.dim(0)?, model.config.latent_channels);
        check_latents(latents, batch, channels, size)?;
        let (rows, columns) = grid(size, PACK)?;
        let packed = latents
            .to_dtype(model.dtype)?
            .reshape(vec![batch, channels, rows, PACK, columns, PACK])?
            .permute(vec![0, 2, 4, 1, 3, 5])?
            .reshape((batch, rows * columns, channels * PACK * PACK))?;
        // diffusers passes a thousandth of the timestep and multiplies it by a thousand, both in f32.
        let timestep = f64::from(timestep as f32 / THOUSAND * THOUSAND);
        let timestep = model.timestep_embedder.forward(timestep, &model.device)?;
        let activated = self.embedded.broadcast_add(&timestep)?.silu()?;
        Ok(Box::new(Forward {
            bound: self,
            streams: Streams::Apart { text: self.text.clone(), image: model.x_embedder.forward(&packed)? },
            doubles: model
                .doubles
                .iter()
                .map(|block| Ok([block.norm1.forward(&activated)?, block.norm1_context.forward(&activated)?]))
                .collect::<Result<_>>()?,
            singles: model.singles.iter().map(|block| block.norm.forward(&activated)).collect::<Result<_>>()?,
            last: model.norm_out.forward(&activated)?,
            attn: None,
            mlp: None,
        }))
    }
}

/// The residual streams: separate in double blocks, joined (text, then image) in single blocks.
enum Streams {
    Apart { text: Tensor, image: Tensor },
    Joined(Tensor),
}

/// One forward pass: the residual streams and the modulations of this timestep.
struct Forward<'a> {
    bound: &'a Prompted<'a>,
    streams: Streams,
    /// Per double block, for image and text: shift, scale and gate of the attention, then of the feed-forward layer.
    doubles: Vec<[Modulation; 2]>,
    /// Per single block: shift, scale and gate.
    singles: Vec<Modulation>,
    /// Scale and shift of the last norm.
    last: Modulation,
    /// Output of a single block's `attn`, which its `proj_out` reads.
    attn: Option<Tensor>,
    /// Output of its `proj_mlp`, likewise.
    mlp: Option<Tensor>,
}

fn no_slot(slot: Slot) -> ModelError {
    ModelError::Input(format!("the model has no slot {slot:?}, or it cannot run at this point of a forward pass"))
}

impl Forward<'_> {
    fn run_double(&self, slot: Slot, text: &Tensor, image: &Tensor) -> Result<Tensor> {
        let (model, i) = (self.bound.model, slot.block as usize);
        let (Some(block), Some([of_image, of_text])) = (model.doubles.get(i), self.doubles.get(i)) else {
            return Err(no_slot(slot));
        };
        match slot.component {
            ATTN => {
                let image = block.image.forward(&of_image.normed(image, 0, 1)?)?;
                let tokens = text.dim(1)?;
                let text = block.text.forward(&of_text.normed(text, 0, 1)?)?;
                let both = text.then(&image)?.rotated(&self.bound.cos, &self.bound.sin)?.attend(model.heads())?;
                let text = block.to_add_out.forward(&both.narrow(1, 0, tokens)?)?;
                let image = block.to_out.forward(&both.narrow(1, tokens, both.dim(1)? - tokens)?)?;
                Ok(Tensor::cat(&[text, image], 1)?)
            }
            FF => block.ff.forward(&of_image.normed(image, 3, 4)?),
            LAST => block.ff_context.forward(&of_text.normed(text, 3, 4)?),
            _ => Err(no_slot(slot)),
        }
    }

    fn run_single(&self, slot: Slot, hidden: &Tensor) -> Result<Tensor> {
        let (model, i) = (self.bound.model, slot.block as usize);
        let (Some(block), Some(modulation)) = (model.singles.get(i), self.singles.get(i)) else {
            return Err(no_slot(slot));
        };
        match slot.component {
            ATTN => {
                let qkv = block.attn.forward(&modulation.normed(hidden, 0, 1)?)?;
                qkv.rotated(&self.bound.cos, &self.bound.sin)?.attend(model.heads())
            }
            PROJ_MLP => Ok(block.proj_mlp.forward(&modulation.normed(hidden, 0, 1)?)?),
            LAST => {
                let (Some(attn), Some(mlp)) = (&self.attn, &self.mlp) else { return Err(no_slot(slot)) };
                let read = Tensor::cat(&[attn, &Activation::GeluTanh.apply(mlp)?], 2)?;
                Ok(block.proj_out.forward(&read)?)
            }
            _ => Err(no_slot(slot)),
        }
    }
}

impl State for Forward<'_> {
    fn run(&self, slot: Slot) -> Result<Tensor> {
        match &self.streams {
            Streams::Apart { text, image } if slot.group == DOUBLE => self.run_double(slot, text, image),
            Streams::Joined(hidden) if slot.group != DOUBLE => self.run_single(slot, hidden),
            _ => Err(no_slot(slot)),
        }
    }

    fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()> {
        let i = slot.block as usize;
        let next = match &self.streams {
            Streams::Apart { text, image } if slot.group == DOUBLE => {
                let Some([of_image, of_text]) = self.doubles.get(i) else { return Err(no_slot(slot)) };
                let tokens = text.dim(1)?;
                let (text, image) = match slot.component {
                    ATTN => (
                        of_text.gated(text, 2, &output.narrow(1, 0, tokens)?)?,
                        of_image.gated(image, 2, &output.narrow(1, tokens, image.dim(1)?)?)?,
                    ),
                    FF => (text.clone(), of_image.gated(image, 5, output)?),
                    _ => (of_text.gated(text, 5, output)?, image.clone()),
                };
                if slot.component == LAST && i + 1 == self.doubles.len() {
                    Streams::Joined(Tensor::cat(&[text, image], 1)?)
                } else {
                    Streams::Apart { text, image }
                }
            }
            Streams::Joined(hidden) if slot.group != DOUBLE => {
                let Some(modulation) = self.singles.get(i) else { return Err(no_slot(slot)) };
                match slot.component {
                    ATTN => {
                        self.attn = Some(output.clone());
                        return Ok(());
                    }
                    PROJ_MLP => {
                        self.mlp = Some(output.clone());
                        return Ok(());
                    }
                    _ => {
                        let hidden = modulation.gated(hidden, 2, output)?;
                        (self.attn, self.mlp) = (None, None);
                        Streams::Joined(hidden)
                    }
                }
            }
            _ => return Err(no_slot(slot)),
        };
        self.streams = next;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Tensor> {
        let (model, size) = (self.bound.model, self.bound.size);
        let Streams::Joined(hidden) = &self.streams else {
            return Err(ModelError::Input("a forward pass ended before its single blocks".into()));
        };
        let (rows, columns) = grid(size, PACK)?;
        let image = hidden.narrow(1, hidden.dim(1)? - rows * columns, rows * columns)?;
        let tokens = model.proj_out.forward(&self.last.normed(&image, 1, 0)?)?;
        let (batch, channels) = (tokens.dim(0)?, model.config.latent_channels);
        let output = tokens
            .reshape(vec![batch, rows, columns, channels, PACK, PACK])?
            .permute(vec![0, 3, 1, 4, 2, 5])?
            .reshape((batch, channels, size.height, size.width))?
            .to_dtype(DType::F32)?;
        Ok(output)
    }
}
