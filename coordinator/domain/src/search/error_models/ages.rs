//! The age model: the error of a reused output grows with its age, by slot and by step. Messages and tables call it
//! "drift".
//!
//! `sum = Σ_t w_t (Σ_s (q_s · a_ts^p)^r)^(1/r) + offset(step count)`: `a_ts` is the age in grid steps of the output of
//! slot `s` at step `t`, `q` a slot's sensitivity, `w` a step's weight, `p` the growth with age, and `r` how the slots
//! of a step combine: 1 as a sum, 2 as a norm. The parameters are logarithms with normal priors, fitted by damped
//! Gauss-Newton steps from the last fit. With one parameter per slot and per step, a few dozen results identify them.
//! Does not model errors that compound from step to step, or weights of single cells.

use std::sync::Arc;

use super::grid::Grid;
use super::link::Link;
use super::prior::Prior;
use crate::search::dense::{add_outer, solve};

/// Results laid out for the fit.
#[derive(Default)]
pub(super) struct Data {
    /// [`Grid::padded`] cells for each row.
    pub(super) cells: Vec<f32>,
    /// Index of each row's step count in [`Grid::counts`].
    pub(super) count: Vec<usize>,
    pub(super) errors: Vec<f64>,
}

/// With more parameters the fit takes too long.
pub(super) const MOST_PARAMETERS: usize = 400;

/// Number of common parameters: scale, growth, coupling.
const COMMON: usize = 3;

/// Prior means of the common parameters (logarithms), and standard deviations of all kinds.
const MEAN: [f64; COMMON] = [0.0, 0.0, 0.4];
const DEVIATION: [f64; COMMON] = [20.0, 0.4, 0.4];
const SLOT: f64 = 0.9;
const STEP: f64 = 0.7;

/// A fitted age model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AgeModel {
    pub(super) link: Link,
    /// Logarithms: common, step counts, slots, steps.
    parameters: Vec<f64>,
    /// Their prior means.
    means: Arc<[f64]>,
    /// Mean squared residual, in units of errors.
    pub(super) misfit: f64,
}

/// The parameters, precomputed for evaluation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tables {
    /// `(q_s · a^p)^r` at `a * slots + s`.
    pub(super) parts: Vec<f64>,
    pub(super) step: Vec<f64>,
    /// `1 / r`.
    pub(super) root: f64,
    pub(super) offset: Vec<f64>,
}

impl AgeModel {
    /// The start of a fit: the prior means, scaled to the data.
    pub(super) fn start(grid: &Grid, link: Link, data: &Data, prior: &Prior) -> Self {
        let counts = vec![0.0; grid.counts.len()];
        let means: Vec<f64> = [&MEAN[..], &counts, &prior.slots, &prior.steps].concat();
        let mut start = Self { link, parameters: means.clone(), means: means.into(), misfit: f64::INFINITY };
        let tables = start.tables(grid);
        let modelled: f64 = data.cells.chunks_exact(grid.padded()).map(|cells| tables.sum(grid, cells, 0)).sum();
        let wanted: f64 = data.errors.iter().map(|&e| link.sum(e)).sum();
        if modelled > 0.0 && wanted > 0.0 {
            start.parameters[0] = (wanted / modelled).ln();
        }
        start
    }

    pub(super) fn tables(&self, grid: &Grid) -> Tables {
        self.tables_of(grid, &self.parameters)
    }

    fn tables_of(&self, grid: &Grid, parameters: &[f64]) -> Tables {
        let counts = grid.counts.len();
        let (growth, coupling) = (parameters[1].exp(), parameters[2].exp());
        let slots = &parameters[COMMON + counts..COMMON + counts + grid.slots];
        let steps = &parameters[COMMON + counts + grid.slots..];
        let parts = (0..=grid.steps)
            .flat_map(|age| {
                let age = (age as f64).ln();
                slots.iter().map(move |q| if age.is_finite() { (coupling * (q + growth * age)).exp() } else { 0.0 })
            })
            .collect();
        Tables {
            parts,
            step: steps.iter().map(|w| (parameters[0] + w).exp()).collect(),
            root: 1.0 / coupling,
            offset: parameters[COMMON..COMMON + counts].to_vec(),
        }
    }

    /// A copy with `noise` added to every parameter except the common ones, for exploration.
    pub(super) fn jittered(&self, mut noise: impl FnMut() -> f64) -> Self {
        let mut other = self.clone();
        other.parameters.iter_mut().skip(COMMON).for_each(|p| *p += noise());
        other
    }

    /// Improves the fit by up to `steps` damped Gauss-Newton steps. `noise` is the standard deviation of errors.
    pub(super) fn fit(mut self, grid: &Grid, data: &Data, noise: f64, steps: usize) -> Self {
        let mut damping = 1e-3;
        let mut cost = self.cost(grid, data, noise, &self.parameters);
        for _ in 0..steps {
            let Some((hessian, gradient)) = self.linearise(grid, data, noise) else { break };
            let mut improved = false;
            for _ in 0..4 {
                let n = gradient.len();
                let mut damped = hessian.clone();
                (0..n).for_each(|i| damped[i * n + i] *= 1.0 + damping);
                let Some(delta) = solve(damped, gradient.clone()) else { break };
                let mut moved = self.parameters.clone();
                moved.iter_mut().zip(&delta).for_each(|(p, d)| *p += d.clamp(-1.0, 1.0));
                moved[1] = moved[1].clamp(-2.0, 1.1);
                moved[2] = moved[2].clamp(-0.1, 1.4);
                let new = self.cost(grid, data, noise, &moved);
                if new < cost {
                    improved = new < cost * 0.999;
                    (self.parameters, cost) = (moved, new);
                    damping = (damping * 0.2).max(1e-9);
                    break;
                }
                damping *= 10.0;
            }
            if !improved {
                break;
            }
        }
        let tables = self.tables(grid);
        let rows = data.cells.chunks_exact(grid.padded()).zip(&data.count).zip(&data.errors);
        let squares =
            rows.map(|((cells, &count), error)| (self.link.error(tables.sum(grid, cells, count)) - error).powi(2));
        self.misfit = squares.sum::<f64>() / data.errors.len().max(1) as f64;
        self
    }

    /// Prior mean and deviation of a parameter.
    fn prior(&self, grid: &Grid, i: usize) -> (f64, f64) {
        let counts = grid.counts.len();
        let deviation = if i < COMMON {
            DEVIATION[i]
        } else if i < COMMON + counts {
            if i == COMMON { 1e-6 } else { 0.3 }
        } else if i < COMMON + counts + grid.slots {
            SLOT
        } else {
            STEP
        };
        (self.means[i], deviation)
    }

    fn cost(&self, grid: &Grid, data: &Data, noise: f64, parameters: &[f64]) -> f64 {
        let tables = self.tables_of(grid, parameters);
        let rows = data.cells.chunks_exact(grid.padded()).zip(&data.count).zip(&data.errors);
        let fit: f64 = rows
            .map(|((cells, &count), error)| ((self.link.error(tables.sum(grid, cells, count)) - error) / noise).powi(2))
            .sum();
        let prior = parameters.iter().enumerate().map(|(i, p)| {
            let (mean, deviation) = self.prior(grid, i);
            ((p - mean) / deviation).powi(2)
        });
        let cost = fit + prior.sum::<f64>();
        if cost.is_finite() { cost } else { f64::INFINITY }
    }

    /// The Gauss-Newton normal equations at the current parameters; `None` if they are not finite.
    fn linearise(&self, grid: &Grid, data: &Data, noise: f64) -> Option<(Vec<f64>, Vec<f64>)> {
        let n = self.parameters.len();
        let (mut hessian, mut gradient) = (vec![0.0; n * n], vec![0.0; n]);
        let tables = self.tables(grid);
        let mut other = self.parameters.clone();
        other[2] += 1e-4;
        let other = self.tables_of(grid, &other);
        let mut row = vec![0.0; n];
        for ((cells, &count), error) in data.cells.chunks_exact(grid.padded()).zip(&data.count).zip(&data.errors) {
            row.fill(0.0);
            let sum = tables.derivatives(grid, cells, count, &mut row, self.parameters[1].exp());
            row[2] = (other.sum(grid, cells, count) - sum) / 1e-4;
            let slope = self.link.slope(sum).max(1e-3) / noise;
            let residual = (error - self.link.error(sum)) / noise;
            row.iter_mut().for_each(|x| *x *= slope);
            gradient.iter_mut().zip(&row).for_each(|(g, x)| *g += x * residual);
            add_outer(&mut hessian, &row, 1.0);
        }
        for i in 0..n {
            let (mean, deviation) = self.prior(grid, i);
            hessian[i * n + i] += deviation.powi(-2);
            gradient[i] -= (self.parameters[i] - mean) * deviation.powi(-2);
        }
        gradient.iter().chain(&hessian).all(|v| v.is_finite()).then_some((hessian, gradient))
    }
}

impl Tables {
    /// The predicted sum of a laid-out schedule.
    pub(super) fn sum(&self, grid: &Grid, cells: &[f32], count: usize) -> f64 {
        let slots = grid.slots;
        let mut age = vec![0usize; slots];
        let mut sum = self.offset[count];
        for (row, weight) in cells.chunks_exact(slots).zip(&self.step) {
            let mut inner = 0.0;
            for (s, (age, &z)) in age.iter_mut().zip(row).enumerate() {
                *age = if z > 0.0 { *age + 1 } else { 0 };
                inner += self.parts[*age * slots + s];
            }
            sum += weight * self.rooted(inner);
        }
        sum
    }

    /// `x^(1/r)`.
    pub(super) fn rooted(&self, inner: f64) -> f64 {
        if inner > 0.0 { (inner.ln() * self.root).exp() } else { 0.0 }
    }

    /// The sum; writes its derivatives by all parameters but the coupling to `row`.
    fn derivatives(&self, grid: &Grid, cells: &[f32], count: usize, row: &mut [f64], growth: f64) -> f64 {
        let (slots, counts) = (grid.slots, grid.counts.len());
        let logs: Vec<f64> = (0..=grid.steps).map(|a| (a.max(1) as f64).ln()).collect();
        let mut age = vec![0usize; slots];
        let mut total = 0.0;
        for (t, (cells, weight)) in cells.chunks_exact(slots).zip(&self.step).enumerate() {
            let mut inner = 0.0;
            for (s, (age, &z)) in age.iter_mut().zip(cells).enumerate() {
                *age = if z > 0.0 { *age + 1 } else { 0 };
                inner += self.parts[*age * slots + s];
            }
            if inner <= 0.0 {
                continue;
            }
            let here = weight * self.rooted(inner);
            total += here;
            row[COMMON + counts + slots + t] = here;
            let each = here / inner;
            for (s, &age) in age.iter().enumerate() {
                let part = each * self.parts[age * slots + s];
                row[COMMON + counts + s] += part;
                row[1] += part * logs[age] * growth;
            }
        }
        row[0] = total;
        row[COMMON + count] = 1.0;
        total + self.offset[count]
    }
}
