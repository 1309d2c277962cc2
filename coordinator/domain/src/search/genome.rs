//! Genomes: schedules unpacked for variation, with one byte per decision and not canonical; and their search space.
//! Knows nothing of operators.

use std::ops::Range;
use std::sync::Arc;

use evocache_proto::domain::{Decision, GuidanceDecision, Layout, Pass, Schedule};

use crate::rng::Stream;

/// The search space: the layout and the rules that all genomes of a search share.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Space {
    layout: Arc<Layout>,
    steps: Vec<u32>,
    forecast: bool,
    guidance: bool,
    /// The block of each slot, numbered across all groups.
    block: Vec<usize>,
    /// The kind of component of each slot; components of different groups are different kinds.
    component: Vec<usize>,
    /// The blocks that have each kind of component.
    blocks_with: Vec<Range<usize>>,
    /// For each kind of component, the mask of its decisions in four steps of a packed schedule.
    bits: Vec<Box<[u8]>>,
    blocks: usize,
}

impl Space {
    pub(super) fn new(layout: Arc<Layout>, steps: &[u32], forecast: bool) -> Self {
        let (mut block, mut component, mut blocks_with) = (Vec::new(), Vec::new(), Vec::new());
        let mut blocks = 0;
        for group in layout.groups() {
            let (first, kind) = (blocks, blocks_with.len());
            blocks += group.count as usize;
            for b in first..blocks {
                block.extend(group.components.iter().map(|_| b));
                component.extend(kind..kind + group.components.len());
            }
            blocks_with.extend(group.components.iter().map(|_| first..blocks));
        }
        let mut bits = vec![vec![0u8; block.len()].into_boxed_slice(); blocks_with.len()];
        for (i, &kind) in component.iter().cycle().take(4 * block.len()).enumerate() {
            bits[kind][i / 4] |= 3 << (2 * (i % 4));
        }
        Self { layout, steps: steps.to_vec(), forecast, guidance: false, block, component, blocks_with, bits, blocks }
    }

    /// The space in which schedules may have guidance decisions, if `allowed`.
    pub(super) fn with_guidance(self, allowed: bool) -> Self {
        Self { guidance: allowed, ..self }
    }

    /// The number of computed decisions of each kind of component; those of a step that runs one pass of two count half.
    pub(super) fn computed(&self, schedule: &Schedule) -> Vec<f64> {
        if schedule.decides_guidance() {
            let mut computed = vec![0.0; self.blocks_with.len()];
            for (i, _) in schedule.decisions().enumerate().filter(|(_, decision)| *decision == Decision::Compute) {
                let step = (i / self.slots()) as u32;
                let weight = if schedule.runs(step, Pass::Unconditional) { 1.0 } else { 0.5 };
                computed[self.component[i % self.slots()]] += weight;
            }
            return computed;
        }
        let kinds = self.bits.iter().zip(&self.blocks_with);
        kinds
            .map(|(bits, blocks)| {
                // A decision that is not computed has exactly one of its two bits set. Four steps fill as many bytes as
                // there are slots.
                let rows = schedule.packed().chunks(bits.len());
                let cached = rows.map(|row| row.iter().zip(bits).map(|(a, b)| (a & b).count_ones()).sum::<u32>());
                f64::from(schedule.steps() * blocks.len() as u32 - cached.sum::<u32>())
            })
            .collect()
    }

    pub(super) fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The step counts that schedules may have, largest first.
    pub(super) fn steps(&self) -> &[u32] {
        &self.steps
    }

    pub(super) fn forecast(&self) -> bool {
        self.forecast
    }

    /// Whether schedules may have guidance decisions.
    pub(super) fn guidance(&self) -> bool {
        self.guidance
    }

    pub(super) fn slots(&self) -> usize {
        self.block.len()
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The number of kinds of components.
    pub(super) fn components(&self) -> usize {
        self.blocks_with.len()
    }

    pub(super) fn block_of(&self, slot: usize) -> usize {
        self.block[slot]
    }

    pub(super) fn component_of(&self, slot: usize) -> usize {
        self.component[slot]
    }

    /// The blocks that have this kind of component.
    pub(super) fn blocks_with(&self, component: usize) -> Range<usize> {
        self.blocks_with[component].clone()
    }

    /// A random decision that does not compute: reuse or, if allowed, forecast.
    pub(super) fn cached(&self, stream: &mut Stream) -> Decision {
        if self.forecast && stream.chance(0.5) { Decision::Forecast } else { Decision::Reuse }
    }
}

/// The decisions of a schedule, step-major and mutable. Converting to a [`Schedule`] makes them canonical.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Genome {
    steps: usize,
    slots: usize,
    decisions: Vec<Decision>,
    /// One for each step.
    guidance: Vec<GuidanceDecision>,
}

impl Genome {
    pub(super) fn from_fn(space: &Space, steps: u32, mut decide: impl FnMut(usize, usize) -> Decision) -> Self {
        let (steps, slots) = (steps as usize, space.slots());
        let decisions = (0..steps * slots).map(|i| decide(i / slots, i % slots)).collect();
        Self { steps, slots, decisions, guidance: vec![GuidanceDecision::Both; steps] }
    }

    pub(super) fn of(schedule: &Schedule) -> Self {
        let decisions = schedule.decisions().collect();
        let guidance = (0..schedule.steps()).map(|step| schedule.guidance(step)).collect();
        Self { steps: schedule.steps() as usize, slots: schedule.slots(), decisions, guidance }
    }

    /// The schedule in canonical form; `None` if the step count is invalid, which no search allows.
    pub(super) fn to_schedule(&self, space: &Space) -> Option<Schedule> {
        let steps = u32::try_from(self.steps).ok()?;
        let decide = |step: u32, slot| self.at(step as usize, slot);
        let schedule = Schedule::from_fn(space.layout.clone(), steps, decide).ok()?;
        Some(schedule.with_guidance(|step| self.guidance[step as usize]))
    }

    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn at(&self, step: usize, slot: usize) -> Decision {
        self.decisions[step * self.slots + slot]
    }

    pub(super) fn set(&mut self, step: usize, slot: usize, decision: Decision) {
        self.decisions[step * self.slots + slot] = decision;
    }

    pub(super) fn guidance(&self, step: usize) -> GuidanceDecision {
        self.guidance[step]
    }

    pub(super) fn set_guidance(&mut self, step: usize, decision: GuidanceDecision) {
        self.guidance[step] = decision;
    }

    /// The share of a step's cost that its passes take: 1 for both, half for one.
    pub(super) fn share(&self, step: usize) -> f64 {
        if self.guidance[step] == GuidanceDecision::Both { 1.0 } else { 0.5 }
    }

    pub(super) fn computes(&self, step: usize, slot: usize) -> bool {
        self.at(step, slot) == Decision::Compute
    }

    /// Copies the decisions of another genome of the same step count for which `takes(step, slot)` is true.
    pub(super) fn take(&mut self, other: &Self, mut takes: impl FnMut(usize, usize) -> bool) {
        for (i, (mine, theirs)) in self.decisions.iter_mut().zip(&other.decisions).enumerate() {
            if takes(i / self.slots, i % self.slots) {
                *mine = *theirs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::search::random;

    proptest! {
        #[test]
        fn counts_of_computed_decisions_agree_with_the_decisions(seed: u64, steps in 1u32..40, flux: bool, blocks in 1u32..9) {
            let layout = if flux { Layout::flux(blocks, 2) } else { Layout::pixart(blocks) };
            let space = Space::new(Arc::new(layout.unwrap()), &[steps], true);
            let schedule = random::any_density(&space, &mut Stream::new(seed, "counts", 0)).to_schedule(&space).unwrap();
            let mut counts = vec![0.0; space.components()];
            for (i, decision) in schedule.decisions().enumerate() {
                counts[space.component_of(i % space.slots())] += f64::from(u8::from(decision == Decision::Compute));
            }
            prop_assert_eq!(space.computed(&schedule), counts.clone());
            // From half of the steps on, one pass alone.
            let cut = steps / 2;
            let guided = schedule.clone().with_guidance(|step| {
                if step < cut { GuidanceDecision::Both } else { GuidanceDecision::Conditional }
            });
            let slots = space.slots();
            let late = schedule.decisions().enumerate().filter(|&(i, d)| i / slots >= cut.max(1) as usize && d == Decision::Compute);
            let total = counts.iter().sum::<f64>() - 0.5 * late.count() as f64;
            prop_assert!((space.computed(&guided).iter().sum::<f64>() - total).abs() < 1e-9);
        }
    }
}
