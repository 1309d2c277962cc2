//! DiT (arXiv 2212.09748): diffusers' `DiTTransformer2DModel`.
//!
//! Weights: `facebook/DiT-XL-2-256`, `facebook/DiT-XL-2-512`, folder `transformer`. Names and order of the parts are
//! those of the checkpoint. Cacheable components: `attn1` (self-attention) and `ff`.
//!
//! Differences from diffusers that do not change results: queries, keys and values come from one matrix product; the
//! channels of the learned variance are dropped.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use evocache_proto::domain::{BlockGroup, Component, CostModel, Layout, Slot};

use super::block_model::{Activations, BlockModel, Conditioned, Conditioning, Geometry, LatentSize, State};
use super::embeddings::{NumberEmbedding, Spread, positions};
use super::feed_forward::FeedForward;
use super::modulation::{Modulation, ModulationLayer};
use super::patches::{check_latents, grid, unpatch};
use super::pipelines::GENERAL_TRANSFORMER;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;
use crate::files::weights::{Params, WeightSize, Weights};
use crate::layers::{Activation, AttentionBias, Conv2d, Linear, attention};

const COMPONENTS: [&str; 2] = ["attn1", "ff"];
const ATTN1: usize = 0;

/// The settings in `transformer/config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct DitConfig {
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
    /// Whether queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Latent rows and columns of the model's native size.
    pub sample_size: usize,
    /// Side of a patch in latent pixels.
    pub patch: usize,
    /// Activation of the feed-forward layer.
    pub activation: Activation,
    /// Epsilon of the norm before the feed-forward layer.
    pub norm_eps: f64,
    /// Number of classes, without the extra one that stands for no class.
    pub classes: usize,
}

impl DitConfig {
    /// Reads and checks a config.
    pub fn read(config: &Config) -> Result<Self> {
        let own = "DiTTransformer2DModel";
        if config.choice("_class_name", own, &[own, GENERAL_TRANSFORMER])? == GENERAL_TRANSFORMER {
            config.text("norm_type")?;
        }
        fields::check(config, own)?;
        let name = config.choice("activation_fn", "gelu-approximate", &["gelu-approximate", "gelu"])?;
        let heads = config.size_or("num_attention_heads", 16)?;
        let head_dim = config.size_or("attention_head_dim", 72)?;
        if !(heads * head_dim).is_multiple_of(4) {
            let found = format!("{heads} heads of {head_dim}");
            return Err(config.wrong("attention_head_dim", "a width that is a multiple of 4", found));
        }
        let in_channels = config.size_or("in_channels", 4)?;
        let out_channels = config.size_or("out_channels", in_channels)?;
        if out_channels != in_channels && out_channels != 2 * in_channels {
            let expected = format!("{in_channels}, or twice as many for a learned variance");
            return Err(config.wrong("out_channels", expected, out_channels.to_string()));
        }
        let (sample_size, patch) = (config.size_or("sample_size", 32)?, config.size_or("patch_size", 2)?);
        if !sample_size.is_multiple_of(patch) {
            return Err(config.wrong("sample_size", format!("a multiple of {patch}"), sample_size.to_string()));
        }
        Ok(Self {
            heads,
            head_dim,
            in_channels,
            out_channels,
            layers: config.size_or("num_layers", 28)?,
            attention_bias: config.flag_or("attention_bias", true)?,
            sample_size,
            patch,
            activation: if name == "gelu" { Activation::GeluErf } else { Activation::GeluTanh },
            norm_eps: config.number_or("norm_eps", 1e-5)?,
            classes: config.size_or("num_embeds_ada_norm", 1000)?,
        })
    }

    /// Width of a token.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// The embedding of timestep and class; each block has its own.
struct Embedding {
    timestep: NumberEmbedding,
    /// Class embeddings, `[classes + 1, width]`.
    classes: Tensor,
}

impl Embedding {
    fn load(params: &Params<'_>, config: &DitConfig) -> Result<Self> {
        let width = config.width();
        let table = params.at("class_embedder.embedding_table");
        Ok(Self {
            timestep: NumberEmbedding::load(&params.at("timestep_embedder"), width, Spread::Closed)?,
            classes: table.tensor("weight", &[config.classes + 1, width])?,
        })
    }

    /// SiLU of the embedding, `[b, width]`.
    fn activated(&self, timestep: f64, classes: &Tensor) -> Result<Tensor> {
        let timestep = self.timestep.forward(timestep, self.classes.device())?;
        Ok(self.classes.index_select(classes, 0)?.broadcast_add(&timestep)?.silu()?)
    }
}

struct Block {
    embedding: Embedding,
    norm1: ModulationLayer,
    qkv: Linear,
    out: Linear,
    ff: FeedForward,
}

impl Block {
    fn load(params: &Params<'_>, config: &DitConfig) -> Result<Self> {
        let (width, attn1) = (config.width(), params.at("attn1"));
        Ok(Self {
            embedding: Embedding::load(&params.at("norm1.emb"), config)?,
            norm1: ModulationLayer::load(&params.at("norm1.linear"), width, 6)?,
            qkv: Linear::load_stacked(&attn1, &["to_q", "to_k", "to_v"], width, width, config.attention_bias)?,
            out: Linear::load(&attn1.at("to_out.0"), width, width, true)?,
            ff: FeedForward::load(&params.at("ff"), width, config.activation)?,
        })
    }
}

/// The DiT transformer.
pub struct Dit {
    config: DitConfig,
    layout: Arc<Layout>,
    weight_size: WeightSize,
    pos_embed: Conv2d,
    transformer_blocks: Vec<Block>,
    proj_out_1: ModulationLayer,
    proj_out_2: Linear,
    device: Device,
    dtype: DType,
}

impl Dit {
    /// Loads the transformer.
    pub fn load(weights: &Weights, config: DitConfig) -> Result<Self> {
        let (params, width) = (weights.root(), config.width());
        let group = BlockGroup {
            name: "block".into(),
            count: u32::try_from(config.layers).unwrap_or(u32::MAX),
            components: COMPONENTS.map(Component::new).to_vec(),
        };
        let layout = Layout::new(vec![group]).map_err(|error| ModelError::Input(error.to_string()))?;
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
            transformer_blocks: (0..config.layers)
                .map(|i| Block::load(&params.at(format_args!("transformer_blocks.{i}")), &config))
                .collect::<Result<_>>()?,
            proj_out_1: ModulationLayer::load(&params.at("proj_out_1"), width, 2)?,
            proj_out_2: Linear::load(&params.at("proj_out_2"), width, config.patch.pow(2) * config.out_channels, true)?,
            device: params.device().clone(),
            dtype: params.dtype(),
            config,
        })
    }

    /// The config of the transformer.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }
}

impl BlockModel for Dit {
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
        let attn1 = patches * 4 * width * width + 2 * patches * patches * width;
        let ff = patches * FeedForward::macs(width);
        let patch_values = (c.patch * c.patch) as u64;
        let embed = patches * patch_values * (c.in_channels + c.out_channels) as u64 * width;
        let modulations: u64 = self.transformer_blocks.iter().map(|block| block.norm1.macs()).sum();
        let timesteps = (c.layers as u64) * NumberEmbedding::macs(c.width());
        CostModel {
            slot_macs: [attn1, ff].map(|macs| macs * passes).into_iter().cycle().take(self.layout.slots()).collect(),
            slot_cache_bytes: vec![patches * width * self.dtype.size_in_bytes() as u64 * passes; self.layout.slots()],
            step_macs: (embed + modulations + self.proj_out_1.macs()) * passes + timesteps,
            image_macs: 0,
        }
    }

    fn activations(&self, geometry: &Geometry) -> Activations {
        let c = &self.config;
        let (passes, width) = (if geometry.guided { 2 } else { 1 }, c.width() as u64);
        let patches = (geometry.size.height / c.patch * (geometry.size.width / c.patch)) as u64;
        let bytes = self.dtype.size_in_bytes() as u64;
        let stream = patches * width;
        // attn1: q, k, v, attention, output. ff: norm, inner layer, output.
        let slots = [3 + 1 + 1, 1 + 4 + 1].map(|parts| bytes * passes * parts * stream);
        let modulations = (6 * c.layers as u64 + 2) * width;
        Activations {
            shared: bytes * patches * width,
            per_image: bytes * passes * (stream + modulations),
            slots: slots.into_iter().cycle().take(self.layout.slots()).collect(),
        }
    }

    fn condition<'a>(&'a self, conditioning: &Conditioning) -> Result<Box<dyn Conditioned + 'a>> {
        let (rows, columns) = grid(conditioning.size, self.config.patch)?;
        let base = (self.config.sample_size / self.config.patch) as f64;
        Ok(Box::new(Labelled {
            model: self,
            classes: conditioning.prompts.expect_classes(self.config.classes + 1)?.clone(),
            positions: positions(rows, columns, self.config.width(), base, 1.0, &self.device)?.to_dtype(self.dtype)?,
            size: conditioning.size,
        }))
    }
}

/// The model bound to classes and an image size.
struct Labelled<'a> {
    model: &'a Dit,
    classes: Tensor,
    positions: Tensor,
    size: LatentSize,
}

impl Conditioned for Labelled<'_> {
    fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>> {
        let model = self.model;
        check_latents(latents, self.classes.dim(0)?, model.config.in_channels, self.size)?;
        let patches =
            model.pos_embed.forward(&latents.to_dtype(model.dtype)?)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let mut activated = Vec::with_capacity(model.transformer_blocks.len());
        for block in &model.transformer_blocks {
            activated.push(block.embedding.activated(timestep, &self.classes)?);
        }
        let blocks = model.transformer_blocks.iter().zip(&activated);
        // As in diffusers, the last norm uses the embedding of the first block.
        let first = activated.first().ok_or_else(|| ModelError::Input("the model has no blocks".into()))?;
        Ok(Box::new(Forward {
            bound: self,
            hidden: patches.broadcast_add(&self.positions)?,
            modulation: blocks.map(|(block, embedding)| block.norm1.forward(embedding)).collect::<Result<_>>()?,
            last: model.proj_out_1.forward(first)?,
        }))
    }
}

/// One forward pass: the residual stream and the modulations of this timestep.
struct Forward<'a> {
    bound: &'a Labelled<'a>,
    hidden: Tensor,
    /// Per block: shift, scale and gate of attn1, then of ff.
    modulation: Vec<Modulation>,
    /// Shift and scale of the last norm.
    last: Modulation,
}

impl Forward<'_> {
    fn block(&self, slot: Slot) -> Result<(&Block, &Modulation)> {
        let i = slot.block as usize;
        match (self.bound.model.transformer_blocks.get(i), self.modulation.get(i)) {
            (Some(block), Some(modulation)) if slot.group == 0 && slot.component < COMPONENTS.len() => {
                Ok((block, modulation))
            }
            _ => Err(ModelError::Input(format!("the model has no slot {slot:?}"))),
        }
    }
}

impl State for Forward<'_> {
    fn run(&self, slot: Slot) -> Result<Tensor> {
        let (block, modulation) = self.block(slot)?;
        let config = &self.bound.model.config;
        if slot.component != ATTN1 {
            return block.ff.forward(&modulation.normed_with(&self.hidden, 3, 4, config.norm_eps)?);
        }
        let qkv = block.qkv.forward(&modulation.normed(&self.hidden, 0, 1)?)?;
        let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * config.width(), config.width()));
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        Ok(block.out.forward(&attention(&q?, &k?, &v?, config.heads, scale, &AttentionBias::None)?)?)
    }

    fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()> {
        let (_, modulation) = self.block(slot)?;
        let gate = if slot.component == ATTN1 { 2 } else { 5 };
        self.hidden = modulation.gated(&self.hidden, gate, output)?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Tensor> {
        let model = self.bound.model;
        let tokens = model.proj_out_2.forward(&self.last.normed(&self.hidden, 0, 1)?)?;
        let c = &model.config;
        unpatch(&tokens, self.bound.size, c.patch, c.out_channels, c.in_channels)
    }
}
