//! Guidance: either classifier-free (Ho and Salimans, arXiv 2207.12598), as one doubled batch (unconditional rows, then
//! conditional ones) under one schedule, whose guidance decisions may leave out the unconditional rows of a step; or
//! distilled into the model, which takes the scale as an input.

use candle_core::{Result, Tensor};
use evocache_proto::domain::{GuidanceDecision, Schedule};

use crate::models::block_model::{Conditioning, GuidanceKind, LatentSize, Prompts};

/// The passes that a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passes {
    /// All rows of the run's conditioning: both passes with classifier-free guidance, else the only one.
    Both,
    /// The conditional rows alone.
    Conditional,
}

impl Passes {
    pub(super) fn of(schedule: &Schedule, step: u32) -> Self {
        match schedule.guidance(step) {
            GuidanceDecision::Both => Self::Both,
            GuidanceDecision::Conditional | GuidanceDecision::Kept => Self::Conditional,
        }
    }
}

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

    /// The conditional rows of a conditioning that [`pair`](Self::pair) doubled.
    pub(super) fn conditional(pair: &Conditioning, images: usize) -> crate::files::error::Result<Conditioning> {
        Ok(Conditioning { prompts: pair.prompts.batch(images, images)?, ..pair.clone() })
    }

    /// The model's input for latents `[b, c, h, w]`.
    pub(super) fn input(self, latents: &Tensor, passes: Passes) -> Result<Tensor> {
        match passes {
            Passes::Both if self.is_on() => Tensor::cat(&[latents, latents], 0),
            Passes::Both | Passes::Conditional => Ok(latents.clone()),
        }
    }
}

/// Guides the model's outputs of one run, step by step.
pub(super) struct Guide<'a> {
    guidance: Guidance,
    schedule: &'a Schedule,
    /// The conditional less the unconditional output of the last step with both, if a later step uses it.
    difference: Option<Tensor>,
}

impl<'a> Guide<'a> {
    pub(super) fn new(guidance: Guidance, schedule: &'a Schedule) -> Self {
        Self { guidance, schedule, difference: None }
    }

    /// The guided output of a step: see [`GuidanceDecision`]. `output` is `[u; c]` where both passes ran.
    pub(super) fn guide(&mut self, step: u32, output: &Tensor) -> Result<Tensor> {
        if !self.guidance.is_on() {
            return Ok(output.clone());
        }
        let scale = self.guidance.scale;
        match (self.schedule.guidance(step), &self.difference) {
            (GuidanceDecision::Both, _) => {
                let half = output.dim(0)? / 2;
                let (unconditional, conditional) = (output.narrow(0, 0, half)?, output.narrow(0, half, half)?);
                let difference = (conditional - &unconditional)?;
                let guided = (unconditional + (&difference * scale)?)?;
                self.difference = self.schedule.keeps_difference(step).then_some(difference);
                Ok(guided)
            }
            (GuidanceDecision::Kept, Some(difference)) => output + (difference * (scale - 1.0))?,
            // Step 0 runs both passes, so a difference is always there.
            (GuidanceDecision::Conditional | GuidanceDecision::Kept, _) => Ok(output.clone()),
        }
    }
}
