//! Lays schedules of any step count over the grid of the largest step count, by relative time, as input to error
//! models.
//!
//! Grid step `b` of `B` belongs to source step `floor(b · T / B)` of a schedule with `T` steps. A cell is 1 where the
//! output comes from the cache and 0 where it is computed. Does not distinguish reuse from forecast.

use std::ops::Range;

use evocache_proto::domain::{Decision, Schedule};

/// The size of the grid of one search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    pub(super) steps: usize,
    pub(super) slots: usize,
    /// Step counts of the search, largest first; the first is `steps`.
    pub(super) counts: Vec<u32>,
}

impl Grid {
    pub(super) fn cells(&self) -> usize {
        self.steps * self.slots
    }

    /// Length of a laid-out schedule: zeros follow the last cell, so that every cell has neighbors.
    pub(super) fn padded(&self) -> usize {
        (self.cells() + self.slots + 1).next_multiple_of(8)
    }

    /// Grid steps that belong to source step `t` of `of`.
    pub(super) fn covered(&self, t: usize, of: usize) -> Range<usize> {
        (t * self.steps).div_ceil(of)..((t + 1) * self.steps).div_ceil(of).min(self.steps)
    }

    /// The index of a step count in `counts`.
    pub(super) fn count_index(&self, steps: u32) -> usize {
        self.counts.iter().position(|&count| count == steps).unwrap_or(0)
    }

    /// Lays a schedule out: [`padded`](Self::padded) cells, 1 = cached.
    pub(super) fn lay(&self, schedule: &Schedule) -> Vec<f32> {
        let mut cells = vec![0.0; self.padded()];
        let steps = schedule.steps();
        for t in 0..steps {
            let covered = self.covered(t as usize, steps as usize);
            for slot in 0..self.slots {
                if schedule.decision(t, slot) != Decision::Compute {
                    covered.clone().for_each(|b| cells[b * self.slots + slot] = 1.0);
                }
            }
        }
        cells
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evocache_proto::domain::Layout;

    use super::*;

    #[test]
    fn every_grid_step_belongs_to_the_source_step_at_the_same_relative_time() {
        let grid = Grid { steps: 20, slots: 3, counts: vec![20, 12, 7] };
        for of in [20, 12, 7, 1] {
            let all: Vec<usize> = (0..of).flat_map(|t| grid.covered(t, of)).collect();
            assert_eq!(all, (0..20).collect::<Vec<_>>());
            assert!((0..of).all(|t| grid.covered(t, of).all(|b| b * of / 20 == t)));
        }
        let layout = Arc::new(Layout::pixart(1).unwrap());
        let every_second =
            Schedule::from_fn(layout, 12, |step, _| if step % 2 == 0 { Decision::Compute } else { Decision::Reuse });
        let cells = grid.lay(&every_second.unwrap());
        assert_eq!(cells.len(), grid.padded());
        let row: String = (0..20).map(|b| if cells[b * 3] > 0.0 { 'R' } else { 'C' }).collect();
        assert_eq!(row, "CCRRCRRCCRCCRRCRRCCR");
    }
}
