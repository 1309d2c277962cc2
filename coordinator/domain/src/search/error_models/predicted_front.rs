//! Builds a whole predicted front greedily: the cells that cost the least predicted error are cached first.
//!
//! Starting from the all-compute schedule, each step caches the batch of cells that add the least predicted sum per
//! saved cost; within a batch, each cell is re-evaluated after those before it. Does not choose which schedules to
//! plan: that is `fit.rs`.

use std::sync::Arc;

use evocache_proto::domain::Decision;

use super::ages::Tables;
use super::cells::Weights;
use super::error_model::ErrorModel;
use super::grid::Grid;
use crate::search::genome::{Genome, Space};

/// Number of batches between all-compute and only step 0 computed.
const BATCHES: usize = 200;

/// A schedule of the predicted front, and its cells on the grid.
pub(super) struct PredictedSchedule {
    pub(super) genome: Genome,
    pub(super) cells: Vec<f32>,
}

struct Builder<'a> {
    grid: &'a Grid,
    weights: Option<&'a Weights>,
    tables: Option<Arc<Tables>>,
    cells: Vec<f32>,
    /// By grid step: number of cached slots; the age model's inner sum and its root.
    cached: Vec<f64>,
    inner: Vec<f64>,
    rooted: Vec<f64>,
}

impl Builder<'_> {
    fn by_cell(&self, i: usize) -> f64 {
        let Some(w) = self.weights else { return 0.0 };
        let slots = self.grid.slots;
        let z = |i: usize| f64::from(self.cells[i]);
        let mut sum = f64::from(w.own[i]) + z(i + 1) * f64::from(w.next[i]) + z(i + slots) * f64::from(w.later[i]);
        if i > 0 {
            sum += z(i - 1) * f64::from(w.next[i - 1]);
        }
        if i >= slots {
            sum += z(i - slots) * f64::from(w.later[i - slots]);
        }
        let (n, c) = (slots as f64, self.cached[i / slots]);
        let crowd = |c: f64| w.crowd[0] * c * c / n + w.crowd[1] * c * c * c / (n * n);
        sum + crowd(c + 1.0) - crowd(c)
    }

    /// The grid steps whose ages change when cell `i` is cached (start and end), and the age before the start.
    fn run(&self, i: usize) -> (usize, usize, usize) {
        let (slots, slot, at) = (self.grid.slots, i % self.grid.slots, i / self.grid.slots);
        let cached = |t: usize| self.cells[t * slots + slot] > 0.0;
        let before = (0..at).rev().take_while(|&t| cached(t)).count();
        let after = (at + 1..self.grid.steps).take_while(|&t| cached(t)).count();
        (at, at + 1 + after, before)
    }

    fn by_age(&self, i: usize) -> f64 {
        let Some(tables) = &self.tables else { return 0.0 };
        let (slots, slot) = (self.grid.slots, i % self.grid.slots);
        let (from, to, before) = self.run(i);
        (from..to)
            .map(|t| {
                let (old, new) = (t - from, before + 1 + t - from);
                let inner = self.inner[t] - tables.parts[old * slots + slot] + tables.parts[new * slots + slot];
                tables.step[t] * (tables.rooted(inner) - self.rooted[t])
            })
            .sum()
    }

    fn cache(&mut self, i: usize) {
        if let Some(tables) = self.tables.clone() {
            let (slots, slot) = (self.grid.slots, i % self.grid.slots);
            let (from, to, before) = self.run(i);
            for t in from..to {
                self.inner[t] +=
                    tables.parts[(before + 1 + t - from) * slots + slot] - tables.parts[(t - from) * slots + slot];
                self.rooted[t] = tables.rooted(self.inner[t]);
            }
        }
        self.cells[i] = 1.0;
        self.cached[i / self.grid.slots] += 1.0;
    }

    /// The sum that is added by caching a source cell, which covers some grid cells of one slot.
    fn marginal(&mut self, covered: &std::ops::Range<usize>, slot: usize) -> f64 {
        let slots = self.grid.slots;
        if covered.len() == 1 {
            let i = covered.start * slots + slot;
            return self.by_cell(i) + self.by_age(i);
        }
        // Several grid cells are added as if independent: their interaction is small.
        covered.clone().map(|b| self.by_cell(b * slots + slot) + self.by_age(b * slots + slot)).sum()
    }
}

/// The predicted front at one step count. `cost` is the cost of a cell by slot, `cached` the decision for cached cells.
pub(super) fn build(
    space: &Space,
    grid: &Grid,
    model: &ErrorModel,
    steps: u32,
    cost: &[f64],
    cached: Decision,
) -> Vec<PredictedSchedule> {
    let of = steps as usize;
    let mut builder = Builder {
        grid,
        weights: model.weights.as_deref(),
        tables: model.tables.clone(),
        cells: vec![0.0; grid.padded()],
        cached: vec![0.0; grid.steps],
        inner: vec![0.0; grid.steps],
        rooted: vec![0.0; grid.steps],
    };
    let mut genome = Genome::from_fn(space, steps, |_, _| Decision::Compute);
    let mut open: Vec<(usize, usize)> = (1..of).flat_map(|t| (0..grid.slots).map(move |s| (t, s))).collect();
    let batch = open.len().div_ceil(BATCHES).max(1);
    let mut schedules = Vec::new();
    while !open.is_empty() {
        let mut order: Vec<(f64, (usize, usize))> = open
            .iter()
            .map(|&(t, s)| (builder.marginal(&grid.covered(t, of), s) / cost[s].max(1e-9), (t, s)))
            .collect();
        let last = batch.min(order.len()) - 1;
        order.select_nth_unstable_by(last, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let limit = order[last].0 + 0.02 * order[last].0.abs();
        // Considers twice the batch: some cells are no longer cheap once others are cached.
        let window = (2 * batch).min(order.len());
        if window < order.len() {
            order.select_nth_unstable_by(window - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        }
        order.truncate(window);
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut taken = 0;
        for (n, &(_, (t, s))) in order.iter().enumerate() {
            if taken == batch {
                break;
            }
            let covered = grid.covered(t, of);
            let updated = builder.marginal(&covered, s) / cost[s].max(1e-9);
            if n == 0 || updated <= limit {
                covered.for_each(|b| builder.cache(b * grid.slots + s));
                genome.set(t, s, cached);
                taken += 1;
            }
        }
        open.retain(|&(t, s)| genome.computes(t, s));
        schedules.push(PredictedSchedule { genome: genome.clone(), cells: builder.cells.clone() });
    }
    schedules
}
