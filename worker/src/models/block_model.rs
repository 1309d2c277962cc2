//! What the executor asks of a diffusion transformer.
//!
//! A model is bound to prompts once per generation ([`BlockModel::condition`]), begins a forward pass at every step
//! ([`Conditioned::prepare`]) and then runs its slots in the order of its layout: [`State::run`] gives a component's
//! raw output before gate and residual, [`State::combine`] puts an output into the residual stream, whether it was
//! computed now or is an older one. Norms, modulation, gates and residuals always use the current timestep.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use evocache_proto::domain::{CostModel, Layout, Slot};

use crate::files::error::{ModelError, Result};
use crate::files::weights::WeightSize;

/// The size of the picture in latent space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Pixels per latent row or column.
    pub scale: usize,
}

/// What each picture of a batch is to show, as the encoders of a model say it. Every tensor has one row per picture; a
/// model takes the parts it was trained with and refuses prompts that lack one.
#[derive(Debug, Clone, Default)]
pub struct Prompts {
    /// Text encoder output, `[b, tokens, channels]`.
    pub embeddings: Option<Tensor>,
    /// One for a real token, zero for padding, `[b, tokens]`; absent where padding is attended like text.
    pub mask: Option<Tensor>,
    /// One vector for the whole text, `[b, channels]`.
    pub pooled: Option<Tensor>,
    /// Class numbers, `[b]`, u32.
    pub classes: Option<Tensor>,
}

impl Prompts {
    /// Texts with the mask of their padding.
    pub fn masked(embeddings: Tensor, mask: Tensor) -> Self {
        Self { embeddings: Some(embeddings), mask: Some(mask), ..Self::default() }
    }

    /// Texts whose padding counts as text, with a vector for each as a whole.
    pub fn pooled(embeddings: Tensor, pooled: Tensor) -> Self {
        Self { embeddings: Some(embeddings), pooled: Some(pooled), ..Self::default() }
    }

    /// Classes, `[b]`.
    pub fn classes(classes: Tensor) -> Self {
        Self { classes: Some(classes), ..Self::default() }
    }

    /// Does the same to every part that is there.
    pub fn map(&self, act: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let part = |x: &Option<Tensor>| x.as_ref().map(&act).transpose();
        Ok(Self {
            embeddings: part(&self.embeddings)?,
            mask: part(&self.mask)?,
            pooled: part(&self.pooled)?,
            classes: part(&self.classes)?,
        })
    }

    /// The texts in numbers of this kind; a mask and classes stay what they are.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let part = |x: &Option<Tensor>| x.as_ref().map(|x| x.to_dtype(dtype)).transpose();
        Ok(Self { embeddings: part(&self.embeddings)?, pooled: part(&self.pooled)?, ..self.clone() })
    }

    /// Pictures `first..first + count`.
    pub fn batch(&self, first: usize, count: usize) -> Result<Self> {
        self.map(|x| x.narrow(0, first, count))
    }

    /// Picture `index` as often as there are images in a batch.
    pub fn repeated(&self, index: usize, count: usize) -> Result<Self> {
        self.map(|x| {
            let mut shape = x.dims().to_vec();
            shape[0] = count;
            x.narrow(0, index, 1)?.broadcast_as(shape)?.contiguous()
        })
    }

    /// The pictures of both, these first. Both must have the same parts.
    pub fn then(&self, other: &Self) -> candle_core::Result<Self> {
        let part = |a: &Option<Tensor>, b: &Option<Tensor>| match (a, b) {
            (Some(a), Some(b)) => Tensor::cat(&[a, b], 0).map(Some),
            (None, None) => Ok(None),
            _ => Err(candle_core::Error::Msg("prompts of two kinds cannot stand in one batch".into())),
        };
        Ok(Self {
            embeddings: part(&self.embeddings, &other.embeddings)?,
            mask: part(&self.mask, &other.mask)?,
            pooled: part(&self.pooled, &other.pooled)?,
            classes: part(&self.classes, &other.classes)?,
        })
    }

    /// The text embeddings, which must have `channels` channels, with the number of tokens.
    pub fn expect_embeddings(&self, channels: usize) -> Result<(&Tensor, usize)> {
        let Some(embeddings) = &self.embeddings else { return Err(lacking("text embeddings")) };
        match embeddings.dims3()? {
            (_, tokens, found) if found == channels => Ok((embeddings, tokens)),
            _ => Err(ModelError::Input(format!(
                "the text encoder gives embeddings {:?}, the transformer expects {channels} channels",
                embeddings.dims()
            ))),
        }
    }

    /// The mask, which must fit the text embeddings.
    pub fn expect_mask(&self) -> Result<&Tensor> {
        let Some(mask) = &self.mask else { return Err(lacking("a mask of the padding")) };
        let text = self.embeddings.as_ref().map_or(&[] as &[usize], Tensor::dims);
        if mask.dims().len() != 2 || text.get(..2) != Some(mask.dims()) {
            return Err(ModelError::Input(format!("a mask {:?} does not fit embeddings {text:?}", mask.dims())));
        }
        Ok(mask)
    }

    /// The vectors of whole texts, which must be `[batch, channels]`.
    pub fn expect_pooled(&self, batch: usize, channels: usize) -> Result<&Tensor> {
        let Some(pooled) = &self.pooled else { return Err(lacking("a pooled embedding")) };
        if pooled.dims() != [batch, channels] {
            return Err(ModelError::Input(format!(
                "the text encoder gives pooled embeddings {:?}, the transformer expects [{batch}, {channels}]",
                pooled.dims()
            )));
        }
        Ok(pooled)
    }

    /// The classes, each of which must be below `count`.
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
    ModelError::Input(format!("the transformer is conditioned on {what}, and the prompts have none"))
}

/// What a batch of images is to show, and how.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// What each picture is to show.
    pub prompts: Prompts,
    /// The guidance scale for models that were distilled to take it as an input; others do not look at it.
    pub guidance: Option<f64>,
    /// Size of the pictures.
    pub size: LatentSize,
}

/// How a model is guided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuidanceKind {
    /// By a second forward pass without the prompt (arXiv 2207.12598).
    ClassifierFree,
    /// It was distilled into the model: one pass, with the scale as an input or fixed for good (arXiv 2210.03142).
    Distilled,
}

/// Sizes that costs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the picture in latent space.
    pub size: LatentSize,
    /// Text tokens per prompt, padding included.
    pub tokens: usize,
    /// Whether classifier-free guidance doubles every forward pass.
    pub guided: bool,
}

/// Memory that forward passes take beside weights and cached outputs, in bytes, predicted from shapes. Classifier-free
/// guidance doubles what is per image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activations {
    /// Throughout, whatever the batch.
    pub shared: u64,
    /// Throughout, per image: residual streams, modulations, texts.
    pub per_image: u64,
    /// While one of the slots is computed, per image, in their order: the most that is there at once, the output included.
    pub slots: Vec<u64>,
}

/// A diffusion transformer whose components can be run one by one.
pub trait BlockModel: Send + Sync {
    /// Which components there are, in the order they run.
    fn layout(&self) -> &Arc<Layout>;

    /// Channels of the latents.
    fn latent_channels(&self) -> usize;

    /// How the model is guided.
    fn guidance(&self) -> GuidanceKind {
        GuidanceKind::ClassifierFree
    }

    /// Tokens that a picture of this size becomes; an error says which sizes there are.
    fn image_tokens(&self, size: LatentSize) -> Result<usize>;

    /// How much the weights are.
    fn weight_size(&self) -> WeightSize;

    /// What numbers activations and stored outputs are made of. Latents are f32 on both sides of the model.
    fn dtype(&self) -> DType;

    /// Costs per image of one forward pass and, in `image_macs`, of [`condition`](Self::condition).
    fn cost(&self, geometry: &Geometry) -> CostModel;

    /// Memory of a forward pass.
    fn activations(&self, geometry: &Geometry) -> Activations;

    /// Binds the model to prompts; what depends on nothing else is computed here, once per generation.
    fn condition<'a>(&'a self, conditioning: &Conditioning) -> Result<Box<dyn Conditioned + 'a>>;
}

/// A model bound to a batch of prompts.
pub trait Conditioned {
    /// Begins a forward pass: latents `[b, c, h, w]` in f32 at a timestep of the training schedule.
    fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>>;
}

/// One forward pass under way.
pub trait State {
    /// The raw output of a component on the current state. Does not change the state.
    fn run(&self, slot: Slot) -> Result<Tensor>;

    /// Puts a component's output into the state. To be called once per slot, in the layout's order.
    fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()>;

    /// The model's output `[b, c, h, w]` in f32, with the channels of the latents only.
    fn finish(self: Box<Self>) -> Result<Tensor>;
}
