//! Predicts a run's peak memory from shapes, so that a run that does not fit is refused before it starts.
//!
//! Counts the weights of transformer and decoder, and, slot by slot through the schedule, activations and stored
//! outputs that exist at the same time. Does not count the text encoders, which are dropped before a run, scratch space
//! of kernels, or memory that the allocator or the driver reserves.

use evocache_proto::domain::{CostModel, Decision, Schedule};

use crate::models::block_model::Activations;

/// The inputs of the prediction that do not depend on the schedule, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Weights of transformer and decoder.
    pub weights: u64,
    /// Activations while denoising.
    pub denoising: Activations,
    /// Activations while decoding, per image.
    pub decoding: u64,
}

impl Memory {
    /// Peak bytes of a run of `batch` images. `cost` must match the schedule's layout.
    pub fn peak(&self, schedule: &Schedule, cost: &CostModel, batch: u64) -> u64 {
        let Activations { shared, per_image, slots } = &self.denoising;
        let denoising = shared + batch * (per_image + moving(schedule, &cost.slot_cache_bytes, slots));
        self.weights + denoising.max(batch * self.decoding)
    }

    /// Peak bytes of denoising one image without stored outputs, excluding weights.
    pub fn uncached(&self) -> u64 {
        let Activations { shared, per_image, slots } = &self.denoising;
        shared + per_image + slots.iter().max().copied().unwrap_or(0)
    }
}

/// Peak bytes per image of the stored outputs and the slot that runs, together. `sizes` are the bytes of each slot's
/// output, `running` the bytes that computing it takes.
fn moving(schedule: &Schedule, sizes: &[u64], running: &[u64]) -> u64 {
    let (layout, slots) = (schedule.layout(), schedule.slots());
    let retention = schedule.retention();
    // `held`: stored outputs. `waiting`: outputs that are not stored but are still to be read by another component.
    let (mut held, mut waiting, mut peak) = (0u64, 0u64, 0u64);
    let mut released = vec![0u64; retention.len()];
    for (i, retained) in retention.iter().enumerate() {
        let (step, index) = (i / slots, i % slots);
        let size = sizes[index];
        let slot = layout.slot(index);
        let feeds = layout.groups()[slot.group].components[slot.component].feeds.is_some();
        // Adding an output to a residual stream creates a new stream of the same size.
        let combined = if feeds { 0 } else { size };
        let mut fresh = size;
        match schedule.decision(step as u32, index) {
            Decision::Compute => {
                peak = peak.max(held + waiting + running[index]);
                if let Some(reader) = retained {
                    held += size;
                    released[*reader as usize * slots + index] += size;
                    fresh = 0;
                }
                peak = peak.max(held + waiting + fresh + combined);
            }
            _ if !schedule.consumed(step as u32, index) => fresh = 0,
            Decision::Reuse => {
                // After its last read the output is no longer stored, but may still wait.
                fresh = if released[i] > 0 { size } else { 0 };
                peak = peak.max(held + waiting + combined);
            }
            // The difference of the two outputs, then its multiple beside the sum.
            Decision::Forecast => peak = peak.max(held + waiting + 2 * size),
        }
        waiting = if feeds { waiting + fresh } else { 0 };
        held -= released[i];
    }
    peak
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evocache_proto::domain::Layout;

    use super::*;

    #[test]
    fn stored_outputs_and_work_count_where_they_are_there_together() {
        // Slots of 10, 20 and 30 bytes, which need 15, 50 and 31 bytes while they are computed.
        let layout = Arc::new(Layout::pixart(1).unwrap());
        let peak = |decide: fn(u32, usize) -> Decision| {
            let schedule = Schedule::from_fn(layout.clone(), 2, decide).unwrap();
            moving(&schedule, &[10, 20, 30], &[15, 50, 31])
        };
        assert_eq!(peak(|_, _| Decision::Compute), 60, "the last output and the stream that it is added to");
        let outer = |step, slot| if step == 1 && slot != 1 { Decision::Reuse } else { Decision::Compute };
        assert_eq!(peak(outer), 30 + 50, "the third output is stored while the second is computed");
        let first = |step, slot| if step == 1 && slot == 0 { Decision::Reuse } else { Decision::Compute };
        assert_eq!(peak(first), 10 + 30 + 30, "the first output, the third, and the stream");
    }

    #[test]
    fn what_waits_for_another_component_counts_until_it_is_read() {
        // A double block of 0 bytes, and a single block: attn 1, proj_mlp 4, proj_out 1, which takes 9 to compute.
        let layout = Arc::new(Layout::flux(1, 1).unwrap());
        let all = Schedule::all_compute(layout, 2).unwrap();
        assert_eq!(moving(&all, &[0, 0, 0, 1, 4, 1], &[0, 0, 0, 2, 5, 9]), 1 + 4 + 9);
    }
}
