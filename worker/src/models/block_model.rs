//! What the executor asks of a diffusion transformer.
//!
//! A model is bound to prompts once per generation ([`BlockModel::condition`]), begins a forward pass at every step
//! ([`Conditioned::prepare`]) and then runs its slots in the order of its layout: [`State::run`] gives a component's
//! raw output before gate and residual, [`State::combine`] puts an output into the residual stream, whether it was
//! computed now or is an older one. Norms, modulation, gates and residuals always use the current timestep.

use std::sync::Arc;

use candle_core::Tensor;
use evocache_proto::domain::{CostModel, Layout, Slot};

use crate::files::error::Result;

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

/// What a batch of images is to show.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// Text encoder output, `[b, tokens, channels]`.
    pub embeddings: Tensor,
    /// One for a real token, zero for padding, `[b, tokens]`.
    pub mask: Tensor,
    /// Size of the pictures.
    pub size: LatentSize,
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

/// A diffusion transformer whose components can be run one by one.
pub trait BlockModel: Send + Sync {
    /// Which components there are, in the order they run.
    fn layout(&self) -> &Arc<Layout>;

    /// Channels of the latents.
    fn latent_channels(&self) -> usize;

    /// Values in all weights.
    fn parameters(&self) -> u64;

    /// Costs per image of one forward pass and, in `image_macs`, of [`condition`](Self::condition).
    fn cost(&self, geometry: &Geometry) -> CostModel;

    /// Binds the model to prompts; what depends on nothing else is computed here, once per generation.
    fn condition<'a>(&'a self, conditioning: &Conditioning) -> Result<Box<dyn Conditioned + 'a>>;
}

/// A model bound to a batch of prompts.
pub trait Conditioned {
    /// Begins a forward pass: latents `[b, c, h, w]` at a timestep of the training schedule.
    fn prepare<'a>(&'a self, latents: &Tensor, timestep: f64) -> Result<Box<dyn State + 'a>>;
}

/// One forward pass under way.
pub trait State {
    /// The raw output of a component on the current state. Does not change the state.
    fn run(&self, slot: Slot) -> Result<Tensor>;

    /// Puts a component's output into the state. To be called once per slot, in the layout's order.
    fn combine(&mut self, slot: Slot, output: &Tensor) -> Result<()>;

    /// The model's output `[b, c, h, w]`, with the channels of the latents only.
    fn finish(self: Box<Self>) -> Result<Tensor>;
}
