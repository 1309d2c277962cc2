//! The cost model: a schedule's latency as a linear function of its computed cells of each kind and its step count.
//!
//! A ridge regression towards "cost is the share computed": usable from the first result on, and later fitted to the
//! measured latency, because a cached attention may save less than a cached feed-forward. Does not model interactions.

use evocache_proto::domain::Schedule;

use super::dense::{Factor, add_outer};
use super::genome::{Genome, Space};

/// The weight of the prior, in results.
const PRIOR: f64 = 0.5;
/// Standard deviation of coefficients around the prior's.
const UNLIKE: f64 = 0.5;

/// Coefficients: one for the share of steps taken, one for the computed cells of each kind of component.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Costs {
    coefficients: Vec<f64>,
    cells: f64,
    steps: f64,
    /// Cholesky factor of the coefficients' precision after the last fit, in units of one result's variance.
    precision: Factor,
}

impl Costs {
    pub(super) fn new(space: &Space) -> Self {
        let steps = f64::from(space.steps().first().copied().unwrap_or(1));
        let mut coefficients = vec![1.0; 1 + space.components()];
        coefficients[0] = 0.0;
        let precision = Factor::scaled_identity(coefficients.len(), PRIOR);
        Self { coefficients, cells: steps * space.slots() as f64, steps, precision }
    }

    /// The features of a schedule: the share of steps, and the share computed by kind of component. A step that runs one
    /// pass of two counts half.
    pub(super) fn features_of(&self, space: &Space, schedule: &Schedule) -> Vec<f64> {
        let steps = 0.5 * f64::from(schedule.passes()) / self.steps;
        let computed = space.computed(schedule).into_iter().map(|count| count / self.cells);
        std::iter::once(steps).chain(computed).collect()
    }

    /// Fits the coefficients to rows of features (from [`features_of`](Self::features_of)), cost and weight.
    pub(super) fn fit<F: AsRef<[f64]>>(&mut self, rows: impl Iterator<Item = (F, f64, f64)>) {
        let n = self.coefficients.len();
        let (mut a, mut b) = (vec![0.0; n * n], vec![0.0; n]);
        for i in 0..n {
            a[i * n + i] = PRIOR;
            b[i] = if i == 0 { 0.0 } else { PRIOR };
        }
        for (features, cost, weight) in rows {
            add_outer(&mut a, features.as_ref(), weight);
            b.iter_mut().zip(features.as_ref()).for_each(|(b, x)| *b += weight * cost * x);
        }
        let mut precision = Factor::default();
        // Only the lower triangle is used.
        if (0..n).all(|i| precision.push(a[i * n..=i * n + i].to_vec())) {
            self.coefficients = precision.solve(b);
            self.precision = precision;
        }
    }

    /// The expected squared error of the prediction for these features, given the variance of one result: from the
    /// results' noise, and from the bias of the prior.
    pub(super) fn variance_at(&self, features: &[f64], variance: f64) -> f64 {
        let solved = self.precision.solve(features.to_vec());
        let by_results: f64 = solved.iter().zip(features).map(|(s, x)| s * x).sum();
        let by_prior: f64 = solved.iter().map(|s| (PRIOR * UNLIKE * s).powi(2)).sum();
        variance * by_results + by_prior
    }

    /// The number of coefficients.
    pub(super) fn len(&self) -> usize {
        self.coefficients.len()
    }

    /// The predicted cost for these features.
    pub(super) fn line(&self, features: &[f64]) -> f64 {
        features.iter().zip(&self.coefficients).map(|(x, c)| x * c).sum()
    }

    /// The cost of a computed cell by slot; always positive.
    pub(super) fn slots(&self, space: &Space) -> Vec<f64> {
        let kinds = &self.coefficients[1..];
        let least = 0.05 * kinds.iter().map(|c| c.max(0.0)).sum::<f64>() / kinds.len() as f64;
        (0..space.slots()).map(|s| kinds[space.component_of(s)].max(least).max(1e-6) / self.cells).collect()
    }

    /// The predicted cost of a genome.
    pub(super) fn of(&self, space: &Space, genome: &Genome) -> f64 {
        let mut features = vec![0.0; self.coefficients.len()];
        features[0] = (0..genome.steps()).map(|step| genome.share(step)).sum::<f64>() / self.steps;
        for step in 0..genome.steps() {
            for slot in (0..space.slots()).filter(|&slot| genome.computes(step, slot)) {
                features[1 + space.component_of(slot)] += genome.share(step) / self.cells;
            }
        }
        self.line(&features)
    }
}
