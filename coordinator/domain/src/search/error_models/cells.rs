//! The cell model: the error is a sum over cached cells and over pairs of neighboring cached cells.
//!
//! `sum = Σ z_i W_i + Σ z_i z_{i+1} H_i + Σ z_i z_{i+slots} V_i + Σ_steps (q₂ c² + q₃ c³) · slots + offset(step count)`
//! with `z` = 1 where cached and `c` the cached share of a step. A weight is the sum of a common part, a slot's, a
//! step's and the cell's own; each has a normal prior, the common part the widest. So a few results determine the
//! common parts, and more results the weights of single cells. With normal priors this is a Gaussian process over
//! schedules whose kernel counts shared cells and pairs. The posterior is exact; a new result adds a row to a Cholesky
//! factor. Does not model ages beyond two steps, and does not decide when to restart: that is `fit.rs`.

use crate::rng::Stream;

use super::ages::Tables;
use super::grid::Grid;
use super::link::Link;
use crate::search::dense::Factor;

/// Prior standard deviations, as multiples of the mean sum per cached cell.
const COMMON: f64 = 3.0;
const SLOT: f64 = 0.4;
const STEP: f64 = 0.4;
const OWN: f64 = 0.65;
const NEXT: f64 = 0.6;
const LATER: f64 = 0.15;
/// The same for a step count's offset, per cell.
const OFFSET: f64 = 0.3;

/// Weights of cells and of pairs, including the common parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Weights {
    pub(super) own: Vec<f32>,
    pub(super) next: Vec<f32>,
    pub(super) later: Vec<f32>,
    /// Weights of the squared and of the cubed cached share of a step, times the number of slots.
    pub(super) crowd: [f64; 2],
    /// By step count.
    pub(super) offset: Vec<f64>,
}

impl Weights {
    fn zero(grid: &Grid) -> Self {
        let zeros = || vec![0.0; grid.cells()];
        Self { own: zeros(), next: zeros(), later: zeros(), crowd: [0.0; 2], offset: vec![0.0; grid.counts.len()] }
    }

    /// The predicted sum of a laid-out schedule.
    pub(super) fn sum(&self, grid: &Grid, cells: &[f32], count: usize) -> f64 {
        let crowd = crowds(grid, cells);
        self.pairs(grid.slots, cells) + self.crowd[0] * crowd[0] + self.crowd[1] * crowd[1] + self.offset[count]
    }

    fn pairs(&self, slots: usize, cells: &[f32]) -> f64 {
        let n = self.own.len();
        let (here, next, later) = (&cells[..n], &cells[1..=n], &cells[slots..n + slots]);
        let value = |k: usize| here[k] * (self.own[k] + next[k] * self.next[k] + later[k] * self.later[k]);
        let mut lanes = [0f32; 8];
        let mut sum = 0.0;
        let all = n - n % 8;
        for (block, i) in (0..all).step_by(8).enumerate() {
            for (j, lane) in lanes.iter_mut().enumerate() {
                *lane += value(i + j);
            }
            if block % 32 == 31 {
                sum += lanes.iter().map(|&l| f64::from(l)).sum::<f64>();
                lanes = [0.0; 8];
            }
        }
        sum + lanes.iter().chain(&(all..n).map(value).collect::<Vec<_>>()).map(|&l| f64::from(l)).sum::<f64>()
    }

    fn is_finite(&self) -> bool {
        self.own.iter().chain(&self.next).chain(&self.later).all(|w| w.is_finite())
    }
}

/// Σ c² · slots and Σ c³ · slots over the steps.
fn crowds(grid: &Grid, cells: &[f32]) -> [f64; 2] {
    let mut sums = [0.0; 2];
    for row in cells[..grid.cells()].chunks_exact(grid.slots) {
        let share = f64::from(row.iter().sum::<f32>()) / grid.slots as f64;
        sums[0] += share * share * grid.slots as f64;
        sums[1] += share * share * share * grid.slots as f64;
    }
    sums
}

/// A schedule's features in the kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Features {
    /// Cached cells, then pairs with the next cell, then pairs with the same slot a step later; a bit each.
    bits: Vec<u64>,
    words: usize,
    /// Cached cells by slot and by step, and later pairs by slot.
    counts: Vec<f32>,
    /// Numbers of cells and of both kinds of pairs, and the [`crowds`].
    common: [f64; 5],
    count: usize,
}

impl Features {
    pub(super) fn new(grid: &Grid, cells: &[f32], count: usize) -> Self {
        let words = grid.cells().div_ceil(64);
        let (slots, steps) = (grid.slots, grid.steps);
        let mut bits = vec![0u64; 3 * words];
        let mut counts = vec![0f32; 2 * slots + steps];
        let mut common = [0.0; 5];
        for i in (0..grid.cells()).filter(|&i| cells[i] > 0.0) {
            let bit = 1u64 << (i % 64);
            bits[i / 64] |= bit;
            common[0] += 1.0;
            counts[i % slots] += 1.0;
            counts[slots + i / slots] += 1.0;
            if cells[i + 1] > 0.0 {
                bits[words + i / 64] |= bit;
                common[1] += 1.0;
            }
            if cells[i + slots] > 0.0 {
                bits[2 * words + i / 64] |= bit;
                common[2] += 1.0;
                counts[slots + steps + i % slots] += 1.0;
            }
        }
        [common[3], common[4]] = crowds(grid, cells);
        Self { bits, words, counts, common, count }
    }

    /// The number of cached cells.
    pub(super) fn cached(&self) -> f64 {
        self.common[0]
    }

    /// The prior covariance of two schedules' sums, for a scale of 1.
    pub(super) fn kernel(&self, grid: &Grid, other: &Self) -> f64 {
        let both = |part: usize| -> f64 {
            let range = part * self.words..(part + 1) * self.words;
            let shared = self.bits[range.clone()].iter().zip(&other.bits[range]);
            f64::from(shared.map(|(a, b)| (a & b).count_ones()).sum::<u32>())
        };
        let dot = |range: std::ops::Range<usize>| -> f64 {
            f64::from(self.counts[range.clone()].iter().zip(&other.counts[range]).map(|(a, b)| a * b).sum::<f32>())
        };
        let (slots, steps) = (grid.slots, grid.steps);
        let common: f64 = self.common.iter().zip(&other.common).map(|(a, b)| a * b).sum();
        let offset = if self.count == other.count && self.count > 0 { OFFSET * grid.cells() as f64 } else { 0.0 };
        COMMON * COMMON * common
            + OWN * OWN * both(0)
            + NEXT * NEXT * both(1)
            + LATER * LATER * both(2)
            + SLOT * SLOT * dot(0..slots)
            + STEP * STEP * dot(slots..slots + steps)
            + 0.25 * SLOT * SLOT * dot(slots + steps..2 * slots + steps)
            + offset * offset
    }

    fn unpack(&self, grid: &Grid, into: &mut Vec<f32>) {
        into.clear();
        into.resize(grid.padded(), 0.0);
        for (i, cell) in into.iter_mut().enumerate().take(grid.cells()) {
            *cell = (self.bits[i / 64] >> (i % 64) & 1) as f32;
        }
    }
}

/// How errors are converted to sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Setting {
    pub(super) link: Link,
    /// Standard deviation of the measured errors.
    pub(super) noise: f64,
    /// Mean sum per cached cell.
    pub(super) scale: f64,
}

impl Setting {
    /// An error as a sum, and the variance of that sum.
    pub(super) fn read(&self, error: f64) -> (f64, f64) {
        let sum = self.link.sum(error);
        (sum, (self.noise / self.link.slope(sum).max(0.02)).powi(2))
    }
}

/// The model with the results that it has learned from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CellModel {
    pub(super) setting: Setting,
    rows: Vec<Features>,
    pub(super) sums: Vec<f64>,
    variances: Vec<f64>,
    factor: Factor,
}

impl CellModel {
    pub(super) fn new(setting: Setting) -> Self {
        Self { setting, rows: Vec::new(), sums: Vec::new(), variances: Vec::new(), factor: Factor::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds one result.
    pub(super) fn add(&mut self, grid: &Grid, features: Features, error: f64) {
        let (sum, variance) = self.setting.read(error);
        let squared = self.setting.scale * self.setting.scale;
        let mut row: Vec<f64> = self.rows.iter().map(|other| squared * features.kernel(grid, other)).collect();
        row.push(squared * features.kernel(grid, &features) + variance);
        if self.factor.push(row) {
            self.rows.push(features);
            self.sums.push(sum);
            self.variances.push(variance);
        }
    }

    /// The rows' sums as predicted by an age model with these tables.
    pub(super) fn explained(&self, grid: &Grid, ages: Option<&Tables>) -> Vec<f64> {
        let mut cells = Vec::new();
        let sum = |row: &Features| {
            row.unpack(grid, &mut cells);
            ages.map_or(0.0, |t| t.sum(grid, &cells, row.count))
        };
        self.rows.iter().map(sum).collect()
    }

    /// The posterior mean of the weights, given the rows' sums less `explained`.
    pub(super) fn weights(&self, grid: &Grid, explained: Option<&[f64]>) -> Weights {
        let mut target = self.sums.clone();
        if let Some(explained) = explained {
            target.iter_mut().zip(explained).for_each(|(t, e)| *t -= e);
        }
        self.posterior(grid, target)
    }

    /// A draw of the weights around the posterior mean, with `width` times the posterior's deviation.
    pub(super) fn draw(&self, grid: &Grid, explained: Option<&[f64]>, width: f64, stream: &mut Stream) -> Weights {
        let mut prior = Weights::zero(grid);
        let scale = self.setting.scale * width;
        for (weights, deviation) in [(&mut prior.own, OWN), (&mut prior.next, NEXT), (&mut prior.later, LATER)] {
            weights.iter_mut().for_each(|w| *w = (scale * deviation * normal(stream)) as f32);
        }
        let mut target = self.sums.clone();
        let mut cells = Vec::new();
        for (i, row) in self.rows.iter().enumerate() {
            row.unpack(grid, &mut cells);
            target[i] -= prior.pairs(grid.slots, &cells) + explained.map_or(0.0, |e| e[i]);
            target[i] += width * self.variances[i].sqrt() * normal(stream);
        }
        let mut weights = self.posterior(grid, target);
        for (to, from) in
            [(&mut weights.own, &prior.own), (&mut weights.next, &prior.next), (&mut weights.later, &prior.later)]
        {
            to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
        }
        weights
    }

    /// The posterior mean of the weights for these sums.
    fn posterior(&self, grid: &Grid, target: Vec<f64>) -> Weights {
        let alpha = self.factor.solve(target);
        let mut w = Weights::zero(grid);
        let (n, slots, steps) = (grid.cells(), grid.slots, grid.steps);
        let (mut counts, mut common) = (vec![0.0; 2 * slots + steps], [0.0; 5]);
        let mut cells = Vec::new();
        for (row, &a) in self.rows.iter().zip(&alpha) {
            row.unpack(grid, &mut cells);
            let v = a as f32;
            let into = w.own.iter_mut().zip(w.next.iter_mut()).zip(w.later.iter_mut());
            let from = cells[..n].iter().zip(&cells[1..=n]).zip(&cells[slots..n + slots]);
            for (((own, next), later), ((z, zn), zl)) in into.zip(from) {
                let scaled = v * z;
                *own += scaled;
                *next += scaled * zn;
                *later += scaled * zl;
            }
            counts.iter_mut().zip(&row.counts).for_each(|(c, r)| *c += a * f64::from(*r));
            common.iter_mut().zip(&row.common).for_each(|(c, r)| *c += a * r);
            w.offset[row.count] += a;
        }
        let squared = self.setting.scale * self.setting.scale;
        let (common_part, slot, step) = (squared * COMMON * COMMON, squared * SLOT * SLOT, squared * STEP * STEP);
        for i in 0..n {
            let (t, s) = (i / slots, i % slots);
            let own = common_part * common[0] + slot * counts[s] + step * counts[slots + t];
            let later = common_part * common[2] + 0.25 * slot * counts[slots + steps + s];
            w.own[i] = (own + squared * OWN * OWN * f64::from(w.own[i])) as f32;
            w.next[i] = (common_part * common[1] + squared * NEXT * NEXT * f64::from(w.next[i])) as f32;
            w.later[i] = (later + squared * LATER * LATER * f64::from(w.later[i])) as f32;
        }
        w.crowd = [common_part * common[3], common_part * common[4]];
        let offset = squared * (OFFSET * n as f64).powi(2);
        w.offset.iter_mut().enumerate().for_each(|(i, o)| *o *= if i == 0 { 0.0 } else { offset });
        if w.is_finite() { w } else { Weights::zero(grid) }
    }
}

/// An approximately standard normal number: the sum of twelve uniform ones, less 6.
pub(super) fn normal(stream: &mut Stream) -> f64 {
    let unit = |bits: u64| (bits & 0xffff) as f64 / 65_536.0;
    (0..3).map(|_| stream.bits()).map(|b| unit(b) + unit(b >> 16) + unit(b >> 32) + unit(b >> 48)).sum::<f64>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_posterior_fits_its_results_and_predicts_others() {
        let grid = Grid { steps: 8, slots: 4, counts: vec![8] };
        let mut stream = Stream::new(1, "test", 0);
        let mut truth = Weights::zero(&grid);
        truth.own.iter_mut().for_each(|w| *w = (0.01 + 0.02 * stream.unit()) as f32);
        truth.next.iter_mut().for_each(|w| *w = 0.01);
        let mut model = CellModel::new(Setting { link: Link::Exponential, noise: 1e-4, scale: 0.02 });
        let mut draw = |share: f64| {
            let mut cells = vec![0.0; grid.padded()];
            cells[4..32].iter_mut().for_each(|c| *c = f32::from(u8::from(stream.chance(share))));
            cells
        };
        for i in 0..90 {
            let cells = draw(f64::from(i % 10) / 10.0);
            let error = Link::Exponential.error(truth.sum(&grid, &cells, 0));
            model.add(&grid, Features::new(&grid, &cells, 0), error);
        }
        let weights = model.weights(&grid, None);
        let drawn = model.draw(&grid, None, 1.0, &mut Stream::new(1, "draw", 0));
        assert_ne!(weights, drawn);
        for share in [0.2, 0.5, 0.8] {
            let cells = draw(share);
            let wanted = truth.sum(&grid, &cells, 0);
            assert!((weights.sum(&grid, &cells, 0) - wanted).abs() < 0.02 * wanted);
            assert!((drawn.sum(&grid, &cells, 0) - wanted).abs() < 0.1 * wanted);
        }
    }
}
