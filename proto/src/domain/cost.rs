//! The exact cost of a schedule in multiply-accumulates and cache memory, without running it.

use super::{Decision, Pass, Schedule};

/// The costs of one model under one sampling setup, per image. Classifier-free guidance with two passes doubles them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostModel {
    /// Multiply-accumulates of one run of each slot, including attention scores and values.
    pub slot_macs: Vec<u64>,
    /// Bytes of one stored output of each slot.
    pub slot_cache_bytes: Vec<u64>,
    /// Multiply-accumulates of what every step runs whatever the schedule.
    pub step_macs: u64,
    /// Multiply-accumulates of what runs once per image, such as the VAE decoder.
    pub image_macs: u64,
}

/// A cost model that does not fit the layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cost model has {found} values in '{field}', the layout has {slots} slots")]
pub struct CostModelError {
    field: &'static str,
    found: usize,
    slots: usize,
}

impl CostModel {
    /// Checks that there is one value per slot.
    pub fn check(&self, slots: usize) -> Result<(), CostModelError> {
        for (field, found) in [("slot_macs", self.slot_macs.len()), ("slot_cache_bytes", self.slot_cache_bytes.len())] {
            if found != slots {
                return Err(CostModelError { field, found, slots });
            }
        }
        Ok(())
    }
}

impl Schedule {
    /// Multiply-accumulates per image. The cost model must have been [checked](CostModel::check) for this layout, and be
    /// that of a guided run if the schedule [decides guidance](Self::decides_guidance): a step that runs one pass costs
    /// half.
    pub fn macs(&self, cost: &CostModel) -> u64 {
        let halves = |step| if self.runs(step, Pass::Unconditional) { 2 } else { 1 };
        let slots: u64 = (0..self.steps())
            .flat_map(|step| (0..self.slots()).map(move |slot| (step, slot)))
            .filter(|&(step, slot)| self.decision(step, slot) == Decision::Compute)
            .map(|(step, slot)| halves(step) * cost.slot_macs[slot])
            .sum();
        (slots + cost.step_macs * u64::from(self.passes())) / 2 + cost.image_macs
    }

    /// The peak size of stored outputs, in bytes per image. An output is dropped right after its last read, and one
    /// that is never read again is not stored. The cost model must fit, as for [`macs`](Self::macs). The difference that
    /// a step [keeps](super::GuidanceDecision::Kept) has the size of the latents and is not counted.
    pub fn peak_cache_bytes(&self, cost: &CostModel) -> u64 {
        let slots = self.slots();
        // Without guidance decisions both halves live equally long.
        let lives = if self.decides_guidance() {
            vec![(self.retention_of(Pass::Conditional), 2), (self.retention_of(Pass::Unconditional), 2)]
        } else {
            vec![(self.retention(), 1)]
        };
        // An output is held from (its step, slot) to (the step of its last read, slot), both included.
        let cells = self.steps() as usize * slots;
        let mut released = vec![0u64; cells];
        let (mut held, mut peak) = (0u64, 0u64);
        for i in 0..cells {
            let slot = i % slots;
            for (last_read, parts) in &lives {
                if let Some(reader) = last_read[i] {
                    let bytes = cost.slot_cache_bytes[slot] / parts;
                    held += bytes;
                    released[reader as usize * slots + slot] += bytes;
                }
            }
            peak = peak.max(held);
            held -= released[i];
        }
        peak
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{GuidanceDecision, Layout};

    fn cost() -> CostModel {
        CostModel { slot_macs: vec![100, 10, 1], slot_cache_bytes: vec![4, 2, 1], step_macs: 1000, image_macs: 5000 }
    }

    fn schedule(rows: [&str; 3]) -> Schedule {
        let layout = Arc::new(Layout::pixart(1).unwrap());
        Schedule::from_fn(layout, rows[0].len() as u32, |step, slot| {
            Decision::from_letter(rows[slot].as_bytes()[step as usize].into()).unwrap()
        })
        .unwrap()
    }

    #[test]
    fn macs_are_counted_per_computed_slot_step_and_image() {
        assert_eq!(schedule(["CRC", "CCC", "CRR"]).macs(&cost()), 200 + 30 + 1 + 3000 + 5000);
    }

    #[test]
    fn memory_is_what_somebody_still_reads() {
        assert_eq!(schedule(["CCC", "CCC", "CCC"]).peak_cache_bytes(&cost()), 0);
        assert_eq!(schedule(["CRC", "CCC", "CCC"]).peak_cache_bytes(&cost()), 4);
        assert_eq!(schedule(["CRC", "CCR", "CRR"]).peak_cache_bytes(&cost()), 4 + 1);
        // attn1's output is dropped at step 1 before attn2's new one is stored at the same step.
        assert_eq!(schedule(["CRC", "CCR", "CCC"]).peak_cache_bytes(&cost()), 4);
        // A forecast holds two outputs.
        assert_eq!(schedule(["CCF", "CCC", "CCC"]).peak_cache_bytes(&cost()), 8);
    }

    #[test]
    fn a_cost_model_for_other_slots_is_refused() {
        assert!(cost().check(3).is_ok());
        assert!(cost().check(4).is_err());
    }
    #[test]
    fn a_step_with_one_pass_costs_half_and_keeps_half() {
        let cost = CostModel { slot_cache_bytes: vec![8, 4, 2], ..cost() };
        let with = |rows: [&str; 3], guidance: &str| {
            let letters: Vec<char> = guidance.chars().collect();
            schedule(rows).with_guidance(|step| GuidanceDecision::from_letter(letters[step as usize]).unwrap())
        };
        assert_eq!(with(["CRC", "CCC", "CRR"], "BBC").macs(&cost), 150 + 25 + 1 + 2500 + 5000);
        assert_eq!(with(["CRC", "CCC", "CCC"], "BBC").peak_cache_bytes(&cost), 8);
        assert_eq!(with(["CRC", "CCC", "CCC"], "BCC").peak_cache_bytes(&cost), 4, "the other half is not read again");
        // The unconditional half of step 0 waits for step 2 while the conditional one of step 1 is stored beside it.
        assert_eq!(with(["CCR", "CCC", "CCC"], "BCB").peak_cache_bytes(&cost), 8);
        assert_eq!(with(["CCRR", "CCCC", "CCCC"], "BCCC").peak_cache_bytes(&cost), 4);
    }
}
