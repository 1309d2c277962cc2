//! The interface between the executor and a diffusion transformer.
//!
//! A model is bound to prompts once per generation ([`BlockModel::condition`]), starts a forward pass at every step
//! ([`Conditioned::prepare`]) and runs its slots in the order of its layout: [`State::run`] gives the raw output of a
//! component, before gate and residual; [`State::combine`] adds an output, new or cached, to the residual stream.
//! Norms, modulation, gates and residuals always use the current timestep.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use evocache_proto::domain::{CostModel, Layout, Slot};

use crate::files::error::{ModelError, Result};
use crate::files::weights::WeightSize;

/// Size of an image in latent space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentSize {
    /// Latent rows.
    pub height: usize,
    /// Latent columns.
    pub width: usize,
    /// Pixels per latent row or column.
    pub scale: usize,
}

/// Encoded prompts of a batch. Every tensor has one row per image. A model uses the parts that it was trained with and
/// rejects prompts that lack one.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    /// Text encoder output, `[b, tokens, channels]`.
    pub embeddings: Option<Tensor>,
    /// One for a real token, zero for padding, `[b, tokens]`; `None` if padding is attended like text.
    pub mask: Option<Tensor>,
    /// One vector for each whole text, `[b, channels]`.
    pub pooled: Option<Tensor>,
    /// Class numbers, `[b]`, u32.
    pub classes: Option<Tensor>,
}

impl Prompts {
    /// Prompts with text embeddings and a padding mask.
    pub fn masked(embeddings: Tensor, mask: Tensor) -> Self {
        Self { embeddings: Some(embeddings), mask: Some(mask), ..Self::default() }
    }

    /// Prompts with text embeddings whose padding counts as text, and pooled embeddings.
    pub fn pooled(embeddings: Tensor, pooled: Tensor) -> Self {
        Self { embeddings: Some(embeddings), pooled: Some(pooled), ..Self::default() }
    }

    /// Prompts that are classes, `[b]`.
    pub fn classes(classes: Tensor) -> Self {
        Self { classes: Some(classes), ..Self::default() }
    }

    /// Applies `act` to every part that is present.
    pub fn map(&self, act: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let part = |x: &Option<Tensor>| x.as_ref().map(&act).transpose();
        Ok(Self {
            embeddings: part(&self.embeddings)?,
            mask: part(&self.mask)?,
            pooled: part(&self.pooled)?,
            classes: part(&self.classes)?,
        })
    }

    /// Converts the embeddings to a data type; mask and classes are unchanged.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let part = |x: &Option<Tensor>| x.as_ref().map(|x| x.to_dtype(dtype)).transpose();
        Ok(Self { embeddings: part(&self.embeddings)?, pooled: part(&self.pooled)?, ..self.clone() })
    }

    /// The prompts of images `first..first + count`.
    pub fn batch(&self, first: usize, count: usize) -> Result<Self> {
        self.map(|x| x.narrow(0, first, count))
    }

    /// The prompt of image `index`, `count` times.
    pub fn repeated(&self, index: usize, count: usize) -> Result<Self> {
        self.map(|x| {
            let mut shape = x.dims().to_vec();
            shape[0] = count;
            x.narrow(0, index, 1)?.broadcast_as(shape)?.contiguous()
        })
    }

    /// Concatenates the prompts of `self` and `other`. Fails unless both have the same parts.
    pub fn then(&self, other: &Self) -> candle_core::Result<Self> {
        let part = |a: &Option<Tensor>, b: &Option<Tensor>| match (a, b) {
            (Some(a), Some(b)) => Tensor::cat(&[a, b], 0).map(Some),
            (None, None) => Ok(None),
            _ => Err(candle_core::Error::Msg("prompts with different parts cannot share a batch".into())),
        };
        Ok(Self {
            embeddings: part(&self.embeddings, &other.embeddings)?,
            mask: part(&self.mask, &other.mask)?,
            pooled: part(&self.pooled, &other.pooled)?,
            classes: part(&self.classes, &other.classes)?,
        })
    }

    /// The text embeddings and their number of tokens. Fails unless they have `channels` channels.
    pub fn expect_embeddings(&self, channels: usize) -> Result<(&Tensor, usize)> {
        let Some(embeddings) = &self.embeddings else { return Err(lacking("text embeddings")) };
        match embeddings.dims3()? {
            (_, tokens, found) if found == channels => Ok((embeddings, tokens)),
            _ => Err(ModelError::Input(format!(
                "the text encoder gives embeddings {:?}, but the transformer expects {channels} channels",
                embeddings.dims()
            ))),
        }
    }

    /// The padding mask. Fails unless it fits the text embeddings.
    pub fn expect_mask(&self) -> Result<&Tensor> {
        let Some(mask) = &self.mask else { return Err(lacking("a mask of the padding")) };
        let text = self.embeddings.as_ref().map_or(&[] as &[usize], Tensor::dims);
        if mask.dims().len() != 2 || text.get(..2) != Some(mask.dims()) {
            return Err(ModelError::Input(format!("a mask {:?} does not fit embeddings {text:?}", mask.dims())));
        }
        Ok(mask)
    }

    /// The pooled embeddings. Fails unless they are `[batch, channels]`.
    pub fn expect_pooled(&self, batch: usize, channels: usize) -> Result<&Tensor> {
        let Some(pooled) = &self.pooled else { return Err(lacking("a pooled embedding")) };
        if pooled.dims() != [batch, channels] {
            return Err(ModelError::Input(format!(
                "the text encoder gives pooled embeddings {:?}, but the transformer expects [{batch}, {channels}]",
                pooled.dims()
            )));
        }
        Ok(pooled)
    }

    /// The classes. Fails unless each is below `count`.
    pub fn expect_classes(&self, count: usize) -> Result<&Tensor> {
        let Some(classes) = &self.classes else { return Err(lacking("class labels")) };
        let known = classes.dtype() == DType::U32 && classes.dims().len() == 1;
        match known.then(|| classes.to_vec1::<u32>()).transpose()? {
            Some(found) if found.iter().all(|&class| (class as usize) < count) => Ok(classes),
            _ => Err(ModelError::Input(format!("the transformer knows {count} classes, got {classes}"))),
        }
    }
}

fn lacking(what: &str) -> ModelError {
    ModelError::Input(format!("the transformer is conditioned on {what}, but the prompts have none"))
}

/// Prompts, guidance scale and size of a batch of images.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// The encoded prompts.
    pub prompts: Prompts,
    /// The guidance scale, for models that take it as an input; others ignore it.
    pub guidance: Option<f64>,
    /// Size of the images.
    pub size: LatentSize,
}

/// How a model is guided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuidanceKind {
    /// Classifier-free guidance: a second forward pass without the prompt (arXiv 2207.12598).
    ClassifierFree,
    /// Guidance distilled into the model: one pass, with the scale fixed or an input (arXiv 2210.03142).
    Distilled,
}

/// The sizes that costs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the image in latent space.
    pub size: LatentSize,
    /// Text tokens per prompt, padding included.
    pub tokens: usize,
    /// Whether classifier-free guidance doubles every forward pass.
    pub guided: bool,
}

/// Predicted memory of forward passes in bytes, without weights and cached outputs. Amounts per image include the
/// doubling by classifier-free guidance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activations {
    /// Held throughout, independent of the batch.
    pub shared: u64,
    /// Held throughout, per image: residual streams, modulations, texts.
    pub per_image: u64,
    /// Peak while each slot is computed, per image, including its output; in the order of the layout.
    pub slots: Vec<u64>,
}

/// A diffusion transformer whose components can be run separately.
pub trait BlockModel: Send + Sync {
    /// The components in the order in which they run.
    fn layout(&self) -> &Arc<Layout>;

    /// Channels of the latents.
    fn latent_channels(&self) -> usize;

    /// How the model is guided.
    fn guidance(&self) -> GuidanceKind {
        GuidanceKind::ClassifierFree
    }

    /// Number of tokens of an image of this size. Fails, naming the possible sizes, if the model cannot take it.
    fn image_tokens(&self, size: LatentSize) -> Result<usize>;

    /// Size of the weights.
    fn weight_size(&self) -> WeightSize;

    /// Data type of activations and cached outputs. Latents are f32 at input and output.
    fn dtype(&self) -> DType;

    /// Costs per image of one forward pass and, in `image_macs`, of [`condition`](Self::condition).
    fn cost(&self, geometry: &Geometry) -> CostModel;

    /// Predicted memory of a forward pass.
    fn activations(&self, geometry: &Geometry) -> Activations;

    /// Binds the model to prompts, and computes everything that depends only on them, once per generation.
    fn condition<'a>(&'a self, conditioning: &Conditioning) -> Result<Box<dyn Conditioned + 'a>>;
}

/// A model bound to a batch of prompts.
pub trait Conditioned {
    /// Starts a forward pass on latents `[b, c, h, w]` in f32 at a timestep of the training schedule.
    fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>>;
}

/// A forward pass in progress.
pub trait State {
    /// The raw output of a component for the current state, which it does not change.
    fn run(&self, slot: Slot) -> Result<Tensor>;

    /// Adds the output of a component to the state. Must be called once per slot, in the order of the layout.
    fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()>;

    /// The output of the model, `[b, c, h, w]` in f32, with the channels of the latents only.
    fn finish(self: Box<Self>) -> Result<Tensor>;
}
