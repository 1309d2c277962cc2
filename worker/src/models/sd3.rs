//! Stable Diffusion 3 and 3.5 (arXiv 2403.03206): diffusers' `SD3Transformer2DModel`.
//!
//! Weights: `stabilityai/stable-diffusion-3-medium-diffusers`, `stabilityai/stable-diffusion-3.5-medium` and `-large`,
//! folder `transformer`. Names and order of the parts are those of the checkpoint. Cacheable components: `attn` (the
//! outputs of both streams, image first, as one tensor), `attn2` (the image's second attention in 3.5-medium), `ff`
//! (image) and `ff_context` (text). The last block has no text output, so it is a separate group without `ff_context`.
//!
//! Not implemented: skip-layer guidance, image prompts, ControlNets.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use evocache_proto::domain::{BlockGroup, Component, CostModel, Layout, Slot};

use super::block_model::{Activations, BlockModel, Conditioned, Conditioning, Geometry, LatentSize, State};
use super::embeddings::{NumberEmbedding, Spread, TextProjection};
use super::feed_forward::FeedForward;
use super::joint_attention::{ADDED, Heads, OWN, Projections};
use super::modulation::{Modulation, ModulationLayer};
use super::patches::{check_latents, grid, unpatch};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;
use crate::files::weights::{Params, WeightSize, Weights};
use crate::layers::{Activation, Conv2d, Linear};

/// The settings in `transformer/config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sd3Config {
    /// Number of attention heads.
    pub heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Channels of the latents.
    pub channels: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of blocks with a second attention of the image; they come first.
    pub dual: usize,
    /// Whether queries and keys are normalized per head.
    pub qk_norm: bool,
    /// Channels of the text embeddings.
    pub text_channels: usize,
    /// Channels of the pooled text embedding.
    pub pooled_channels: usize,
    /// Latent rows and columns of the model's native size.
    pub sample_size: usize,
    /// Side of a patch in latent pixels.
    pub patch: usize,
    /// Most rows and columns of patches: the side of the position table.
    pub max_patches: usize,
}

impl Sd3Config {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        let own = config.choice("_class_name", "SD3Transformer2DModel", &["SD3Transformer2DModel"])?;
        fields::check(config, own)?;
        let heads = config.size_or("num_attention_heads", 18)?;
        let head_dim = config.size_or("attention_head_dim", 64)?;
        let width = heads * head_dim;
        let context = config.size_or("caption_projection_dim", 1152)?;
        if context != width {
            let expected = format!("{width}, the width of the image tokens");
            return Err(config.wrong("caption_projection_dim", expected, context.to_string()));
        }
        let channels = config.size_or("in_channels", 16)?;
        let out_channels = config.size_or("out_channels", 16)?;
        if out_channels != channels {
            return Err(config.unsupported("out_channels", out_channels, &channels.to_string()));
        }
        let layers = config.size_or("num_layers", 18)?;
        let qk_norm = match config.text_opt("qk_norm")? {
            None => false,
            Some("rms_norm") => true,
            Some(other) => return Err(config.unsupported("qk_norm", other, "null, rms_norm")),
        };
        let dual = config.numbers_opt("dual_attention_layers")?.unwrap_or_default();
        if dual.len() > layers || dual.iter().zip(0u32..).any(|(&layer, i)| layer != f64::from(i)) {
            return Err(config.unsupported(
                "dual_attention_layers",
                format!("{dual:?}"),
                "the first layers: 0, 1, 2, …",
            ));
        }
        Ok(Self {
            heads,
            head_dim,
            channels,
            layers,
            dual: dual.len(),
            qk_norm,
            text_channels: config.size_or("joint_attention_dim", 4096)?,
            pooled_channels: config.size_or("pooled_projection_dim", 2048)?,
            sample_size: config.size_or("sample_size", 128)?,
            patch: config.size_or("patch_size", 2)?,
            max_patches: config.size_or("pos_embed_max_size", 96)?,
        })
    }

    /// Width of a token.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Block groups: those with a second attention, those without, and the last block.
    fn groups(&self) -> Vec<Group> {
        let inner = self.layers.saturating_sub(1);
        let dual = self.dual.min(inner);
        let group = |name, first, count, dual, last| Group { name, first, count, dual, last };
        let all = [
            group("dual", 0, dual, true, false),
            group("joint", dual, inner - dual, false, false),
            group("last", inner, self.layers - inner, self.dual == self.layers, true),
        ];
        all.into_iter().filter(|group| group.count > 0).collect()
    }
}

/// Blocks with the same components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    name: &'static str,
    first: usize,
    count: usize,
    dual: bool,
    last: bool,
}

/// A cacheable component of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    Attn,
    Attn2,
    Ff,
    FfContext,
}

impl Module {
    fn name(self) -> &'static str {
        match self {
            Self::Attn => "attn",
            Self::Attn2 => "attn2",
            Self::Ff => "ff",
            Self::FfContext => "ff_context",
        }
    }
}

impl Group {
    /// The components of a block, in the order in which they run.
    fn modules(self) -> Vec<Module> {
        let mut modules = vec![Module::Attn];
        modules.extend(self.dual.then_some(Module::Attn2));
        modules.push(Module::Ff);
        modules.extend((!self.last).then_some(Module::FfContext));
        modules
    }
}

/// The output layers of the text stream, which the last block lacks.
struct TextStream {
    to_add_out: Linear,
    ff_context: FeedForward,
}

struct Block {
    norm1: ModulationLayer,
    norm1_context: ModulationLayer,
    image: Projections,
    text: Projections,
    to_out: Linear,
    attn2: Option<(Projections, Linear)>,
    ff: FeedForward,
    text_stream: Option<TextStream>,
}

impl Block {
    fn load(params: &Params<'_>, heads: Heads, normed: bool, group: Group) -> Result<Self> {
        let (width, attn) = (heads.width(), params.at("attn"));
        let feed_forward = |name: &str| FeedForward::load(&params.at(name), width, Activation::GeluTanh);
        let context = params.at("norm1_context.linear");
        Ok(Self {
            norm1: ModulationLayer::load(&params.at("norm1.linear"), width, if group.dual { 9 } else { 6 })?,
            norm1_context: ModulationLayer::load(&context, width, if group.last { 2 } else { 6 })?,
            image: Projections::load(&attn, &OWN, heads, normed)?,
            text: Projections::load(&attn, &ADDED, heads, normed)?,
            to_out: Linear::load(&attn.at("to_out.0"), width, width, true)?,
            attn2: if group.dual {
                let attn2 = params.at("attn2");
                let out = Linear::load(&attn2.at("to_out.0"), width, width, true)?;
                Some((Projections::load(&attn2, &OWN, heads, normed)?, out))
            } else {
                None
            },
            ff: feed_forward("ff")?,
            text_stream: if group.last {
                None
            } else {
                let to_add_out = Linear::load(&attn.at("to_add_out"), width, width, true)?;
                Some(TextStream { to_add_out, ff_context: feed_forward("ff_context")? })
            },
        })
    }
}

/// The Stable Diffusion 3 transformer.
pub struct Sd3 {
    config: Sd3Config,
    groups: Vec<Group>,
    layout: Arc<Layout>,
    weight_size: WeightSize,
    pos_embed: Conv2d,
    /// The position table, `[max_patches, max_patches, width]`.
    positions: Tensor,
    timestep_embedder: NumberEmbedding,
    text_embedder: TextProjection,
    context_embedder: Linear,
    transformer_blocks: Vec<Block>,
    norm_out: ModulationLayer,
    proj_out: Linear,
    device: Device,
    dtype: DType,
}

impl Sd3 {
    /// Loads the transformer.
    pub fn load(weights: &Weights, config: Sd3Config) -> Result<Self> {
        let params = weights.root();
        let heads = Heads { count: config.heads, dim: config.head_dim };
        let (width, side, embed) = (config.width(), config.max_patches, params.at("time_text_embed"));
        let groups = config.groups();
        let layout = groups.iter().map(|group| BlockGroup {
            name: group.name.into(),
            count: u32::try_from(group.count).unwrap_or(u32::MAX),
            components: group.modules().into_iter().map(|module| Component::new(module.name())).collect(),
        });
        let layout = Layout::new(layout.collect()).map_err(|error| ModelError::Input(error.to_string()))?;
        let blocks = groups.iter().flat_map(|&group| (0..group.count).map(move |i| (group.first + i, group)));
        Ok(Self {
            layout: Arc::new(layout),
            weight_size: weights.size(|name| name != "pos_embed.pos_embed"),
            pos_embed: Conv2d::load_patches(&params.at("pos_embed.proj"), config.channels, width, config.patch, true)?,
            positions: params
                .at("pos_embed")
                .tensor("pos_embed", &[1, side * side, width])?
                .reshape((side, side, width))?,
            timestep_embedder: NumberEmbedding::load(&embed.at("timestep_embedder"), width, Spread::Open)?,
            text_embedder: TextProjection::load(
                &embed.at("text_embedder"),
                config.pooled_channels,
                width,
                Activation::Silu,
            )?,
            context_embedder: Linear::load(&params.at("context_embedder"), config.text_channels, width, true)?,
            transformer_blocks: blocks
                .map(|(i, group)| {
                    Block::load(&params.at(format_args!("transformer_blocks.{i}")), heads, config.qk_norm, group)
                })
                .collect::<Result<_>>()?,
            norm_out: ModulationLayer::load(&params.at("norm_out.linear"), width, 2)?,
            proj_out: Linear::load(&params.at("proj_out"), width, config.patch.pow(2) * config.channels, true)?,
            device: params.device().clone(),
            dtype: params.dtype(),
            groups,
            config,
        })
    }

    /// The config of the transformer.
    pub fn config(&self) -> &Sd3Config {
        &self.config
    }

    fn heads(&self) -> Heads {
        Heads { count: self.config.heads, dim: self.config.head_dim }
    }

    /// Rows and columns of patches. Fails if they exceed the position table.
    fn grid(&self, size: LatentSize) -> Result<(usize, usize)> {
        let (rows, columns) = grid(size, self.config.patch)?;
        let most = self.config.max_patches;
        if rows > most || columns > most {
            let (unit, most) = (self.config.patch * size.scale, self.config.patch * size.scale * most);
            return Err(ModelError::Input(format!(
                "a picture of {}x{} pixels exceeds the model's positions; height and width must be at most {most}",
                rows * unit,
                columns * unit
            )));
        }
        Ok((rows, columns))
    }

    fn slot(&self, slot: Slot) -> Option<(&Block, usize, Module)> {
        let group = self.groups.get(slot.group)?;
        let module = *group.modules().get(slot.component)?;
        let index = group.first + slot.block as usize;
        let inside = (slot.block as usize) < group.count;
        inside.then(|| self.transformer_blocks.get(index)).flatten().map(|block| (block, index, module))
    }
}

impl BlockModel for Sd3 {
    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn latent_channels(&self) -> usize {
        self.config.channels
    }

    fn image_tokens(&self, size: LatentSize) -> Result<usize> {
        self.grid(size).map(|(rows, columns)| rows * columns)
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
        let image = (geometry.size.height / c.patch * (geometry.size.width / c.patch)) as u64;
        let (text, square) = (geometry.tokens as u64, width * width);
        let all = image + text;
        // The last block has no text output.
        let attn = |last: bool| {
            let written = if last { image } else { all };
            (all * 3 * square + written * square + 2 * all * all * width, written * width)
        };
        let slots: Vec<(u64, u64)> = self
            .groups
            .iter()
            .flat_map(|&group| std::iter::repeat_n(group, group.count))
            .flat_map(|group| group.modules().into_iter().map(move |module| (group, module)))
            .map(|(group, module)| match module {
                Module::Attn => attn(group.last),
                Module::Attn2 => (image * 4 * square + 2 * image * image * width, image * width),
                Module::Ff => (image * FeedForward::macs(width), image * width),
                Module::FfContext => (text * FeedForward::macs(width), text * width),
            })
            .collect();
        let modulations: u64 =
            self.transformer_blocks.iter().map(|block| block.norm1.macs() + block.norm1_context.macs()).sum();
        let embed = 2 * image * (c.patch * c.patch * c.channels) as u64 * width;
        CostModel {
            slot_macs: slots.iter().map(|&(macs, _)| macs * passes).collect(),
            slot_cache_bytes: slots
                .iter()
                .map(|&(_, values)| self.dtype.size_in_bytes() as u64 * values * passes)
                .collect(),
            step_macs: (embed + modulations + self.norm_out.macs()) * passes + NumberEmbedding::macs(c.width()),
            image_macs: (text * c.text_channels as u64 * width + TextProjection::macs(c.pooled_channels, c.width()))
                * passes,
        }
    }

    fn activations(&self, geometry: &Geometry) -> Activations {
        let c = &self.config;
        let (passes, width) = (if geometry.guided { 2 } else { 1 }, c.width() as u64);
        let image = (geometry.size.height / c.patch * (geometry.size.width / c.patch)) as u64;
        let text = geometry.tokens as u64;
        let bytes = self.dtype.size_in_bytes() as u64;
        // Attention peaks before or after the product. Before: projections of each stream (with normalized q and k),
        // joined q, k and v (3), and the image's norm. After: joined q, k and v (3), the text's projections, the
        // attention (1), and the outputs, separate and joined (2). Feed-forward: norm, inner layer, output.
        let projections = if c.qk_norm { 5 } else { 3 };
        let attn = ((projections + 3) * (image + text) + image).max(6 * (image + text) + projections * text);
        let modules = self.groups.iter().flat_map(|&group| std::iter::repeat_n(group.modules(), group.count)).flatten();
        let slots = modules.enumerate().map(|(index, module)| {
            let tokens = match module {
                // In the first block, `entered` is the image stream itself, so it is counted once.
                Module::Attn if index == 0 => attn - image,
                Module::Attn => attn,
                Module::Attn2 => (projections + 1 + 1) * image,
                Module::Ff => (1 + 4 + 1) * image,
                Module::FfContext => (1 + 4 + 1) * text,
            };
            bytes * passes * tokens * width
        });
        // Both streams, and the image stream as it entered the block.
        let stream = (image + text) * width + image * width;
        let modulations: u64 = if c.dual > 0 { 15 } else { 12 } * c.layers as u64 * width;
        Activations {
            shared: bytes * image * width,
            per_image: bytes * passes * (stream + modulations + text * (width + c.text_channels as u64)),
            slots: slots.collect(),
        }
    }

    fn condition<'a>(&'a self, conditioning: &Conditioning) -> Result<Box<dyn Conditioned + 'a>> {
        let (rows, columns) = self.grid(conditioning.size)?;
        let prompts = &conditioning.prompts.to_dtype(self.dtype)?;
        let (embeddings, _) = prompts.expect_embeddings(self.config.text_channels)?;
        let pooled = prompts.expect_pooled(embeddings.dim(0)?, self.config.pooled_channels)?;
        // Any size uses the center of the position table.
        let first = |count: usize| (self.config.max_patches - count) / 2;
        let positions = self.positions.narrow(0, first(rows), rows)?.narrow(1, first(columns), columns)?;
        Ok(Box::new(Prompted {
            model: self,
            text: self.context_embedder.forward(embeddings)?,
            embedded: self.text_embedder.forward(pooled)?,
            positions: positions.reshape((1, rows * columns, self.config.width()))?,
            size: conditioning.size,
        }))
    }
}

/// The model bound to prompts and an image size.
struct Prompted<'a> {
    model: &'a Sd3,
    /// The text stream before the first block, `[b, tokens, width]`.
    text: Tensor,
    /// Embedding of the prompt, added to that of the timestep, `[b, width]`.
    embedded: Tensor,
    positions: Tensor,
    size: LatentSize,
}

impl Conditioned for Prompted<'_> {
    fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>> {
        let model = self.model;
        check_latents(latents, self.text.dim(0)?, model.config.channels, self.size)?;
        let patches =
            model.pos_embed.forward(&latents.to_dtype(model.dtype)?)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let image = patches.broadcast_add(&self.positions)?;
        let timestep = model.timestep_embedder.forward(timestep, &model.device)?;
        let activated = self.embedded.broadcast_add(&timestep)?.silu()?;
        let blocks = model.transformer_blocks.iter();
        Ok(Box::new(Forward {
            bound: self,
            text: self.text.clone(),
            entered: image.clone(),
            image,
            modulation: blocks
                .map(|block| Ok([block.norm1.forward(&activated)?, block.norm1_context.forward(&activated)?]))
                .collect::<Result<_>>()?,
            last: model.norm_out.forward(&activated)?,
        }))
    }
}

/// One forward pass: the residual streams and the modulations of this timestep.
struct Forward<'a> {
    bound: &'a Prompted<'a>,
    text: Tensor,
    image: Tensor,
    /// The image stream as it entered the block, which a second attention also reads.
    entered: Tensor,
    /// Per block, for image and text: shift, scale and gate of the attention, of the feed-forward layer, and of a
    /// second attention. For the text of the last block: scale and shift.
    modulation: Vec<[Modulation; 2]>,
    /// Scale and shift of the last norm.
    last: Modulation,
}

fn no_slot(slot: Slot) -> ModelError {
    ModelError::Input(format!("the model has no slot {slot:?}"))
}

impl State for Forward<'_> {
    fn run(&self, slot: Slot) -> Result<Tensor> {
        let model = self.bound.model;
        let (block, i, module) = model.slot(slot).ok_or_else(|| no_slot(slot))?;
        let [of_image, of_text] = &self.modulation[i];
        match module {
            Module::Attn => {
                let (shift, scale) = if block.text_stream.is_some() { (0, 1) } else { (1, 0) };
                let text = block.text.forward(&of_text.normed(&self.text, shift, scale)?)?;
                let both = block.image.forward(&of_image.normed(&self.image, 0, 1)?)?.then(&text)?;
                let both = both.attend(model.heads())?;
                let tokens = self.image.dim(1)?;
                let image = block.to_out.forward(&both.narrow(1, 0, tokens)?)?;
                let Some(stream) = &block.text_stream else { return Ok(image) };
                let text = stream.to_add_out.forward(&both.narrow(1, tokens, both.dim(1)? - tokens)?)?;
                Ok(Tensor::cat(&[image, text], 1)?)
            }
            Module::Attn2 => {
                let (attn2, out) = block.attn2.as_ref().ok_or_else(|| no_slot(slot))?;
                let qkv = attn2.forward(&of_image.normed(&self.entered, 6, 7)?)?;
                Ok(out.forward(&qkv.attend(model.heads())?)?)
            }
            Module::Ff => block.ff.forward(&of_image.normed(&self.image, 3, 4)?),
            Module::FfContext => {
                let stream = block.text_stream.as_ref().ok_or_else(|| no_slot(slot))?;
                stream.ff_context.forward(&of_text.normed(&self.text, 3, 4)?)
            }
        }
    }

    fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()> {
        let (block, i, module) = self.bound.model.slot(slot).ok_or_else(|| no_slot(slot))?;
        let [of_image, of_text] = &self.modulation[i];
        match module {
            Module::Attn => {
                let tokens = self.image.dim(1)?;
                self.entered = self.image.clone();
                self.image = of_image.gated(&self.image, 2, &output.narrow(1, 0, tokens)?)?;
                if block.text_stream.is_some() {
                    self.text = of_text.gated(&self.text, 2, &output.narrow(1, tokens, self.text.dim(1)?)?)?;
                }
            }
            Module::Attn2 => self.image = of_image.gated(&self.image, 8, output)?,
            Module::Ff => self.image = of_image.gated(&self.image, 5, output)?,
            Module::FfContext => self.text = of_text.gated(&self.text, 5, output)?,
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Tensor> {
        let model = self.bound.model;
        let tokens = model.proj_out.forward(&self.last.normed(&self.image, 1, 0)?)?;
        let c = &model.config;
        unpatch(&tokens, self.bound.size, c.patch, c.channels, c.channels)
    }
}
