//! How much memory a run will take at its peak, from shapes alone, so that what cannot fit is refused before it runs.
//!
//! Counted: weights of transformer and decoder, activations, stored outputs; of the last two what is there at the same time,
//! slot by slot through the schedule. Not counted: the text encoders, which are gone before a run, scratch space of kernels,
//! and what an allocator or a driver keeps for itself.

use evocache_proto::domain::{CostModel, Decision, Schedule};

use crate::models::block_model::Activations;

/// What of a run's memory does not depend on the schedule, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        let Activations { shared, per_image, slots } = &self.denoising;
        let denoising = shared + batch * (per_image + moving(schedule, &cost.slot_cache_bytes, slots));
        self.weights + denoising.max(batch * self.decoding)
    }

    /// The peak of denoising one image whose outputs are not stored, weights left out.
    pub fn uncached(&self) -> u64 {
        let Activations { shared, per_image, slots } = &self.denoising;
        shared + per_image + slots.iter().max().copied().unwrap_or(0)
    }
}

/// Bytes per image of stored outputs and of the slot at hand, at their peak together. `sizes` are those of the slots' outputs,
/// `running` what computing them takes.
fn moving(schedule: &Schedule, sizes: &[u64], running: &[u64]) -> u64 {
    let (layout, slots) = (schedule.layout(), schedule.slots());
    let retention = schedule.retention();
    // Stored outputs; then outputs that are not stored and wait for the component that reads them.
    let (mut held, mut waiting, mut peak) = (0u64, 0u64, 0u64);
    let mut released = vec![0u64; retention.len()];
    for (i, retained) in retention.iter().enumerate() {
        let (step, index) = (i / slots, i % slots);
        let size = sizes[index];
        let slot = layout.slot(index);
        let feeds = layout.groups()[slot.group].components[slot.component].feeds.is_some();
        // What is put into a residual stream makes a new one of its size.
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
                // Read for the last time it is stored no more, but may still wait.
                fresh = if released[i] > 0 { size } else { 0 };
                peak = peak.max(held + waiting + combined);
            }
            // The difference, then its multiple beside the sum.
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
        // Slots of 10, 20 and 30 bytes, which take 15, 50 and 31 to compute.
        let layout = Arc::new(Layout::pixart(1).unwrap());
        let peak = |decide: fn(u32, usize) -> Decision| {
            let schedule = Schedule::from_fn(layout.clone(), 2, decide).unwrap();
            moving(&schedule, &[10, 20, 30], &[15, 50, 31])
        };
        assert_eq!(peak(|_, _| Decision::Compute), 60, "the last output and the stream that it is put into");
        let outer = |step, slot| if step == 1 && slot != 1 { Decision::Reuse } else { Decision::Compute };
        assert_eq!(peak(outer), 30 + 50, "the third output is there while the second is computed");
        let first = |step, slot| if step == 1 && slot == 0 { Decision::Reuse } else { Decision::Compute };
        assert_eq!(peak(first), 10 + 30 + 30, "the first output, the third, and the stream");
    }

    #[test]
    fn what_waits_for_another_component_counts_until_it_is_read() {
        // One double block of nothing much, and a single block: attn 1, proj_mlp 4, proj_out 1, which takes 9 to compute.
        let layout = Arc::new(Layout::flux(1, 1).unwrap());
        let all = Schedule::all_compute(layout, 2).unwrap();
        assert_eq!(moving(&all, &[0, 0, 0, 1, 4, 1], &[0, 0, 0, 2, 5, 9]), 1 + 4 + 9);
    }
}
