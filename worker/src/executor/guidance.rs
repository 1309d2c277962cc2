//! Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) as one doubled batch: unconditional rows first, then
//! conditional ones, under one schedule.

use candle_core::{Result, Tensor};

use crate::models::block_model::Conditioning;

/// How strongly to follow the prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    scale: f64,
}

impl Guidance {
    /// A scale of 1 or less means without guidance: every batch is run once, not doubled.
    pub fn new(scale: f64) -> Self {
        Self { scale }
    }

    /// Whether batches are doubled.
    pub fn is_on(self) -> bool {
        self.scale > 1.0
    }

    /// The conditioning to run with: doubled if guidance is on, else `prompts`.
    pub fn pair(self, negative: &Conditioning, prompts: &Conditioning) -> Result<Conditioning> {
        if !self.is_on() {
            return Ok(prompts.clone());
        }
        Ok(Conditioning {
            embeddings: Tensor::cat(&[&negative.embeddings, &prompts.embeddings], 0)?,
            mask: Tensor::cat(&[&negative.mask, &prompts.mask], 0)?,
            size: prompts.size,
        })
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
