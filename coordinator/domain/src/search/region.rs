//! A box of decisions: a range of steps × a range of blocks × one kind of component or all kinds.

use std::ops::Range;

use super::genome::Space;
use crate::rng::Stream;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Region {
    pub(super) steps: Range<usize>,
    blocks: Range<usize>,
    component: Option<usize>,
}

impl Region {
    /// A random box, never empty. In each dimension, small and large sizes are about equally likely.
    pub(super) fn random(space: &Space, steps: usize, stream: &mut Stream) -> Self {
        let steps = stream.range(steps);
        Self { steps, ..Self::random_slots(space, 0, stream) }
    }

    /// Random slots at all steps: one kind of component or all kinds, in one block, some blocks or all blocks.
    pub(super) fn random_slots(space: &Space, steps: usize, stream: &mut Stream) -> Self {
        let component = stream.chance(0.7).then(|| stream.below(space.components()));
        let among = component.map_or(0..space.blocks(), |c| space.blocks_with(c));
        let blocks = match stream.below(3) {
            0 => among,
            1 => {
                let one = among.start + stream.below(among.len());
                one..one + 1
            }
            _ => {
                let part = stream.range(among.len());
                among.start + part.start..among.start + part.end
            }
        };
        Self { steps: 0..steps, blocks, component }
    }

    pub(super) fn has_slot(&self, space: &Space, slot: usize) -> bool {
        self.blocks.contains(&space.block_of(slot)) && self.component.is_none_or(|c| c == space.component_of(slot))
    }

    pub(super) fn has(&self, space: &Space, step: usize, slot: usize) -> bool {
        self.steps.contains(&step) && self.has_slot(space, slot)
    }

    /// The slots of the box.
    pub(super) fn slots(&self, space: &Space) -> Vec<usize> {
        (0..space.slots()).filter(|&slot| self.has_slot(space, slot)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evocache_proto::domain::Layout;

    use super::*;

    #[test]
    fn a_region_is_never_empty() {
        let space = Space::new(Arc::new(Layout::flux(3, 5).unwrap()), &[6], false);
        for index in 0..500 {
            let region = Region::random(&space, 6, &mut Stream::new(1, "test", index));
            assert!(!region.steps.is_empty() && region.steps.end <= 6, "{region:?}");
            assert!(!region.slots(&space).is_empty(), "{region:?}");
        }
    }
}
