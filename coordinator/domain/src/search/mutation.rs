//! Mutation: small changes that follow the structure of schedules. May change step 0, which computes regardless. Does
//! not choose among operators: that is `variation.rs`.

use evocache_proto::domain::{Decision, GuidanceDecision};

use super::genome::{Genome, Space};
use super::region::Region;
use super::resample::resample;
use crate::rng::Stream;

pub(super) type Mutation = fn(&Space, &mut Genome, &mut Stream);

/// Flips 1, 2, 4, 8 or 16 decisions.
pub(super) fn flip(space: &Space, genome: &mut Genome, stream: &mut Stream) {
    let count = 1usize << stream.below(5);
    for _ in 0..count {
        let (step, slot) = (later_step(genome, stream), stream.below(genome.slots()));
        let flipped = if genome.computes(step, slot) { space.cached(stream) } else { Decision::Compute };
        genome.set(step, slot, flipped);
    }
}

/// Rotates the decisions of some slots by one step within a window of steps.
pub(super) fn shift(space: &Space, genome: &mut Genome, stream: &mut Stream) {
    let region = Region::random_slots(space, genome.steps(), stream);
    let steps = genome.steps();
    let window = stream.range(steps.saturating_sub(1));
    let (first, last) = (window.start + 1, window.end);
    if last >= steps || first >= last {
        return;
    }
    let later = stream.chance(0.5);
    for slot in region.slots(space) {
        let row: Vec<Decision> = (first..=last).map(|step| genome.at(step, slot)).collect();
        for i in 0..row.len() {
            let from = if later { i + row.len() - 1 } else { i + 1 } % row.len();
            genome.set(first + i, slot, row[from]);
        }
    }
}

/// Copies all decisions of one step to another.
pub(super) fn copy_step(_: &Space, genome: &mut Genome, stream: &mut Stream) {
    let (to, from) = (later_step(genome, stream), later_step(genome, stream));
    for slot in 0..genome.slots() {
        genome.set(to, slot, genome.at(from, slot));
    }
}

/// Computes or caches a whole box.
pub(super) fn fill(space: &Space, genome: &mut Genome, stream: &mut Stream) {
    let region = Region::random(space, genome.steps(), stream);
    let decision = if stream.chance(0.5) { Decision::Compute } else { space.cached(stream) };
    for slot in region.slots(space) {
        region.steps.clone().for_each(|step| genome.set(step, slot, decision));
    }
}

/// Lengthens or shortens a gap of some slots by one step, and moves all later decisions by one.
pub(super) fn gap(space: &Space, genome: &mut Genome, stream: &mut Stream) {
    let region = Region::random_slots(space, genome.steps(), stream);
    let (at, steps, cached) = (later_step(genome, stream), genome.steps(), space.cached(stream));
    let stretch = stream.chance(0.5);
    for slot in region.slots(space) {
        if stretch {
            (at + 1..steps).rev().for_each(|step| genome.set(step, slot, genome.at(step - 1, slot)));
            genome.set(at, slot, cached);
        } else if let Some(gap) = (at..steps).find(|&step| !genome.computes(step, slot)) {
            (gap..steps - 1).for_each(|step| genome.set(step, slot, genome.at(step + 1, slot)));
        }
    }
}

/// Resamples to another step count by relative time.
pub(super) fn migrate(space: &Space, genome: &mut Genome, stream: &mut Stream) {
    let others: Vec<u32> = space.steps().iter().copied().filter(|&steps| steps as usize != genome.steps()).collect();
    if let Some(&steps) = stream.pick(&others) {
        *genome = resample(space, genome, steps);
    }
}

/// Turns all cached decisions of a box into forecasts, or all into reuses.
pub(super) fn toggle_forecast(space: &Space, genome: &mut Genome, stream: &mut Stream) {
    let region = Region::random(space, genome.steps(), stream);
    let cached = space.cached(stream);
    for slot in region.slots(space) {
        for step in region.steps.clone() {
            if !genome.computes(step, slot) {
                genome.set(step, slot, cached);
            }
        }
    }
}

/// Changes which passes run: at one step, from a step to the end, or in a window.
pub(super) fn guidance(_: &Space, genome: &mut Genome, stream: &mut Stream) {
    const ALL: [GuidanceDecision; 3] = [GuidanceDecision::Both, GuidanceDecision::Conditional, GuidanceDecision::Kept];
    let (decision, step) = (ALL[stream.below(ALL.len())], later_step(genome, stream));
    let last = match stream.below(3) {
        0 => step,
        1 => genome.steps() - 1,
        _ => stream.between(step, genome.steps() - 1),
    };
    (step..=last).for_each(|step| genome.set_guidance(step, decision));
}

/// A random step after step 0; 0 if there is none.
fn later_step(genome: &Genome, stream: &mut Stream) -> usize {
    stream.between(1, genome.steps().saturating_sub(1)).min(genome.steps().saturating_sub(1))
}
