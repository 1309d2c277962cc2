//! What caching saves: the first cost objective as a line through the numbers of computed cells of each kind.
//!
//! A ridge regression towards "cost is the share computed", so that it is of use from the first result on and follows
//! the measured latency later: a cached attention may save less than a cached feed-forward. Absent: interactions.

use evocache_proto::domain::{Decision, Schedule};

use super::dense::{add_outer, solve};
use crate::domain::search::genome::{Genome, Space};

/// How many results the prior is worth.
const PRIOR: f64 = 0.5;

/// Coefficients: one for the share of steps taken, one for the computed cells of each kind of component.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Costs {
    coefficients: Vec<f64>,
    cells: f64,
    steps: f64,
}

impl Costs {
    pub(super) fn new(space: &Space) -> Self {
        let steps = f64::from(space.steps().first().copied().unwrap_or(1));
        let mut coefficients = vec![1.0; 1 + space.components()];
        coefficients[0] = 0.0;
        Self { coefficients, cells: steps * space.slots() as f64, steps }
    }

    fn features(&self, space: &Space, steps: u32, mut computes: impl FnMut(usize, usize) -> bool) -> Vec<f64> {
        let mut features = vec![0.0; self.coefficients.len()];
        features[0] = f64::from(steps) / self.steps;
        for t in 0..steps as usize {
            for slot in 0..space.slots() {
                if computes(t, slot) {
                    features[1 + space.component_of(slot)] += 1.0 / self.cells;
                }
            }
        }
        features
    }

    /// Fits the line to schedules and their measured costs.
    pub(super) fn fit<'a>(&mut self, space: &Space, rows: impl Iterator<Item = (&'a Schedule, f64)>) {
        let n = self.coefficients.len();
        let (mut a, mut b) = (vec![0.0; n * n], vec![0.0; n]);
        let prior = Self::new(space).coefficients;
        for i in 0..n {
            a[i * n + i] = PRIOR;
            b[i] = PRIOR * prior[i];
        }
        for (schedule, cost) in rows {
            let features = self.features(space, schedule.steps(), |t, slot| {
                u32::try_from(t).is_ok_and(|t| schedule.decision(t, slot) == Decision::Compute)
            });
            add_outer(&mut a, &features, 1.0);
            b.iter_mut().zip(&features).for_each(|(b, x)| *b += cost * x);
        }
        if let Some(coefficients) = solve(a, b) {
            self.coefficients = coefficients;
        }
    }

    /// What a computed cell of each slot costs; never nothing.
    pub(super) fn slots(&self, space: &Space) -> Vec<f64> {
        let kinds = &self.coefficients[1..];
        let least = 0.05 * kinds.iter().map(|c| c.max(0.0)).sum::<f64>() / kinds.len() as f64;
        (0..space.slots()).map(|s| kinds[space.component_of(s)].max(least).max(1e-6) / self.cells).collect()
    }

    /// The predicted cost of a genome.
    pub(super) fn of(&self, space: &Space, genome: &Genome) -> f64 {
        let steps = u32::try_from(genome.steps()).unwrap_or(u32::MAX);
        let features = self.features(space, steps, |t, slot| genome.computes(t, slot));
        features.iter().zip(&self.coefficients).map(|(x, c)| x * c).sum()
    }
}
