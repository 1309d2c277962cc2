//! Crossover: which decisions a child takes from its second parent, which has been resampled to the first parent's step
//! count.
//!
//! ECAD cuts the flat genome at four points. The other operators follow the structure of schedules: whole steps,
//! blocks, kinds of components, and boxes of these. Does not choose among operators: that is `variation.rs`.

use super::genome::{Genome, Space};
use super::region::Region;
use crate::rng::Stream;

pub(super) type Crossover = fn(&Space, &mut Genome, &Genome, &mut Stream);

/// Four cuts through the step-major genome; every other piece comes from the second parent.
pub(super) fn four_point(_: &Space, child: &mut Genome, other: &Genome, stream: &mut Stream) {
    let slots = child.slots();
    let mut cuts = [0; 4].map(|_| stream.below(child.steps() * slots));
    cuts.sort_unstable();
    child.take(other, |step, slot| cuts.iter().filter(|&&cut| cut <= step * slots + slot).count() % 2 == 1);
}

/// Whole steps from either parent: each drawn separately, or one range from the second.
pub(super) fn whole_step(_: &Space, child: &mut Genome, other: &Genome, stream: &mut Stream) {
    let steps = child.steps();
    let from_other = pieces(steps, stream);
    child.take(other, |step, _| from_other[step]);
}

/// Whole blocks from either parent: each drawn separately, or one range from the second.
pub(super) fn whole_block(space: &Space, child: &mut Genome, other: &Genome, stream: &mut Stream) {
    let from_other = pieces(space.blocks(), stream);
    child.take(other, |_, slot| from_other[space.block_of(slot)]);
}

/// Whole kinds of components from either parent.
pub(super) fn whole_component(space: &Space, child: &mut Genome, other: &Genome, stream: &mut Stream) {
    let from_other: Vec<bool> = (0..space.components()).map(|_| stream.chance(0.5)).collect();
    child.take(other, |_, slot| from_other[space.component_of(slot)]);
}

/// A box from the second parent.
pub(super) fn rectangle(space: &Space, child: &mut Genome, other: &Genome, stream: &mut Stream) {
    let region = Region::random(space, child.steps(), stream);
    child.take(other, |step, slot| region.has(space, step, slot));
}

/// Each decision from either parent.
pub(super) fn uniform(_: &Space, child: &mut Genome, other: &Genome, stream: &mut Stream) {
    child.take(other, |_, _| stream.chance(0.5));
}

/// Which of `n` pieces come from the second parent: one range, or each with probability 1/2.
fn pieces(n: usize, stream: &mut Stream) -> Vec<bool> {
    if stream.chance(0.5) {
        let range = stream.range(n);
        (0..n).map(|i| range.contains(&i)).collect()
    } else {
        (0..n).map(|_| stream.chance(0.5)).collect()
    }
}
