//! Counts of a run's work.

use evocache_proto::domain::Decision;

/// Slots counted by decision, and peak cache memory, of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Images in the batch.
    pub images: usize,
    /// Slots computed, over all steps.
    pub computed: u64,
    /// Slots that reused a stored output, over all steps.
    pub reused: u64,
    /// Slots extrapolated from stored outputs, over all steps.
    pub forecast: u64,
    /// Most bytes of stored outputs at once, for the whole batch.
    pub peak_cache_bytes: u64,
}

impl Trace {
    pub(super) fn new(images: usize) -> Self {
        Self { images, computed: 0, reused: 0, forecast: 0, peak_cache_bytes: 0 }
    }

    pub(super) fn count(&mut self, decision: Decision) {
        match decision {
            Decision::Compute => self.computed += 1,
            Decision::Reuse => self.reused += 1,
            Decision::Forecast => self.forecast += 1,
        }
    }

    /// [`peak_cache_bytes`](Self::peak_cache_bytes) per image.
    pub fn peak_cache_bytes_per_image(&self) -> u64 {
        self.peak_cache_bytes / self.images.max(1) as u64
    }
}
