//! How much memory a run will take at its peak, from shapes alone, so that what cannot fit is refused before it runs.
//!
//! Counted: weights of transformer and decoder, activations at their peak, stored outputs. Not counted: the text encoders,
//! which are gone before a run, scratch space of kernels, and what an allocator or a driver keeps for itself.

use evocache_proto::domain::{CostModel, Schedule};

use crate::models::block_model::Activations;

/// What of a run's memory does not depend on the schedule, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Of transformer and decoder.
    pub weights: u64,
    /// While denoising.
    pub denoising: Activations,
    /// While decoding, per image.
    pub decoding: u64,
}

impl Memory {
    /// The peak of a run of `batch` images. `cost` must have been checked for the schedule's layout.
    pub fn peak(&self, schedule: &Schedule, cost: &CostModel, batch: u64) -> u64 {
        let cached = schedule.peak_cache_bytes(cost);
        let denoising = self.denoising.shared + batch * (self.denoising.per_image + cached);
        self.weights + denoising.max(batch * self.decoding)
    }
}
