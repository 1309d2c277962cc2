//! Guidance: either classifier-free (Ho and Salimans, arXiv 2207.12598), as one doubled batch (unconditional rows, then
//! conditional ones) under one schedule; or distilled into the model, which takes the scale as an input.

use candle_core::{Result, Tensor};

use crate::models::block_model::{Conditioning, GuidanceKind, LatentSize, Prompts};

/// The kind of guidance and its scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    scale: f64,
    kind: GuidanceKind,
}

impl Guidance {
    /// Classifier-free guidance. A scale of 1 or less turns it off: batches are not doubled.
    pub fn new(scale: f64) -> Self {
        Self::of_kind(GuidanceKind::ClassifierFree, scale)
    }

    /// Guidance of the kind that a model uses.
    pub fn of_kind(kind: GuidanceKind, scale: f64) -> Self {
        Self { scale, kind }
    }

    /// Whether batches are doubled.
    pub fn is_on(self) -> bool {
        self.kind == GuidanceKind::ClassifierFree && self.scale > 1.0
    }

    /// The conditioning of a run: `[negative; prompts]` if batches are doubled, else `prompts` alone.
    pub fn pair(self, negative: &Prompts, prompts: &Prompts, size: LatentSize) -> Result<Conditioning> {
        let prompts = if self.is_on() { negative.then(prompts)? } else { prompts.clone() };
        let guidance = (self.kind == GuidanceKind::Distilled).then_some(self.scale);
        Ok(Conditioning { prompts, guidance, size })
    }

    /// The model's input for latents `[b, c, h, w]`.
    pub(super) fn input(self, latents: &Tensor) -> Result<Tensor> {
        if self.is_on() { Tensor::cat(&[latents, latents], 0) } else { Ok(latents.clone()) }
    }

    /// The guided output `u + scale (c - u)` of the model's output `[u; c]`.
    pub(super) fn combine(self, output: &Tensor) -> Result<Tensor> {
        if !self.is_on() {
            return Ok(output.clone());
        }
        let half = output.dim(0)? / 2;
        let (unconditional, conditional) = (output.narrow(0, 0, half)?, output.narrow(0, half, half)?);
        &unconditional + ((conditional - &unconditional)? * self.scale)?
    }
}
