//! What is believed of latency ratios: each schedule's own measurements, and how latency follows what is computed.
//!
//! A measurement's logarithm is its schedule's, plus noise; a schedule's is that of a line through what it computes
//! ([`Costs`]), plus what the line misses. With `n` measurements of mean `m`, a line of `f`, noise `σ` and misfit `τ`,
//! the estimate is `f + w (m - f)` in logarithms, with `w = τ² / (τ² + σ²/n)`, and its deviation is `σ √(w/n)`. So on a
//! quiet machine a measurement counts nearly alone, and on a noisy one a lucky one is believed as little as it deserves.
//!
//! `σ` and `τ` are the geometric means of their posterior on a grid, given how far repeated measurements are from their
//! means, how far those means are from the line, and a prior. (The likeliest pair jumps: much noise and no misfit
//! explains results about as well as a little less noise and a large misfit, and believes luck.) What is far out counts as [`CLIP`] times the median, because one
//! disturbed worker must not make all others look noisy. Absent: where a measurement comes from.

use std::collections::BTreeMap;

use evocache_proto::domain::{CandidateId, Schedule};

use super::costs::Costs;
use super::genome::Space;
use crate::domain::estimate::Estimate;

/// Prior deviations of noise and misfit, and how sure the prior is: the deviation of their logarithms.
const NOISE: (f64, f64) = (0.01, 1.5);
const MISFIT: (f64, f64) = (0.02, 0.7);
/// The grid that both are looked for on: the first, the ratio of neighbours, how many.
const GRID: (f64, f64, i32) = (0.001, 1.05, 130);
/// The line is improved so often by a weighted regression: its errors are relative.
const ROUNDS: usize = 2;
/// The line is nowhere lower.
const LEAST: f64 = 0.01;
/// Farther out than this, in standard deviations by the median, nothing counts.
const CLIP: f64 = 3.5;
/// The median of the magnitude of a standard normal variable.
const MEDIAN: f64 = 0.6745;

#[derive(Debug, Clone, PartialEq)]
struct Row {
    features: Box<[f64]>,
    /// Logarithms of the measured ratios.
    ratios: Vec<f64>,
}

impl Row {
    fn count(&self) -> f64 {
        self.ratios.len() as f64
    }

    fn mean(&self) -> f64 {
        self.ratios.iter().sum::<f64>() / self.count()
    }
}

/// All latency ratios of one search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Latencies {
    rows: BTreeMap<CandidateId, Row>,
    line: Costs,
    /// Variances of one measurement, and of schedules around the line.
    noise: f64,
    misfit: f64,
    /// By how many repeated measurements the noise is known.
    repeats: usize,
}

/// The sum of squares with what is far out pulled in.
fn squares(mut magnitudes: Vec<f64>) -> f64 {
    let middle = magnitudes.len() / 2;
    if magnitudes.is_empty() {
        return 0.0;
    }
    let median = *magnitudes.select_nth_unstable_by(middle, f64::total_cmp).1;
    let most = CLIP * median / MEDIAN;
    magnitudes.into_iter().map(|x| x.min(most).powi(2)).sum()
}

/// The logarithm of the normal density of `count` observations with this sum of squares, but for a constant.
fn likelihood(count: f64, squares: f64, variance: f64) -> f64 {
    -0.5 * (count * variance.ln() + squares / variance)
}

fn prior(deviation: f64, (mean, spread): (f64, f64)) -> f64 {
    -0.5 * ((deviation / mean).ln() / spread).powi(2)
}

impl Latencies {
    pub(super) fn new(space: &Space) -> Self {
        Self {
            rows: BTreeMap::new(),
            line: Costs::new(space),
            noise: NOISE.0 * NOISE.0,
            misfit: MISFIT.0 * MISFIT.0,
            repeats: 0,
        }
    }

    /// Another measurement of a schedule; `key` is the first candidate that had it.
    pub(super) fn tell(&mut self, space: &Space, key: CandidateId, schedule: &Schedule, ratio: f64) {
        let line = &self.line;
        let row = self.rows.entry(key).or_insert_with(|| Row {
            features: line.features_of(space, schedule).into_boxed_slice(),
            ratios: Vec::with_capacity(1),
        });
        self.repeats += usize::from(!row.ratios.is_empty());
        row.ratios.push(ratio.max(f64::MIN_POSITIVE).ln());
    }

    /// Learns the line, the noise and the misfit anew.
    pub(super) fn fit(&mut self) {
        for _ in 0..ROUNDS {
            let line = self.line.clone();
            self.line.fit(self.rows.values().map(|row| {
                let old = line.line(&row.features).max(LEAST);
                (&row.features, old * (1.0 + row.mean() - old.ln()), row.count() / (old * old))
            }));
        }
        self.weigh();
    }

    /// Noise and misfit by all that was measured.
    fn weigh(&mut self) {
        let repeated = self.rows.values().filter(|row| row.ratios.len() > 1);
        let within = squares(
            repeated
                .flat_map(|row| {
                    let (mean, n) = (row.mean(), row.count());
                    row.ratios.iter().map(move |x| (x - mean).abs() * (n / (n - 1.0)).sqrt())
                })
                .collect(),
        );
        // Each deviation was scaled up to a whole one; there are as many as measurements, but fewer are free.
        let measurements: f64 = self.rows.values().filter(|r| r.ratios.len() > 1).map(Row::count).sum();
        let freedom = self.repeats as f64;
        let within = if measurements > 0.0 { within * freedom / measurements } else { 0.0 };
        let mut by_count: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for row in self.rows.values() {
            let residual = row.mean() - self.line.line(&row.features).max(LEAST).ln();
            by_count.entry(row.ratios.len()).or_default().push(residual.abs());
        }
        // The line has used up some of the residuals.
        let kept = 1.0 - (self.line.len() as f64 / self.rows.len().max(1) as f64).min(0.9);
        let groups: Vec<(f64, f64, f64)> =
            by_count.into_iter().map(|(n, rest)| (n as f64, kept * rest.len() as f64, squares(rest))).collect();
        let grid = || (0..GRID.2).map(|i| GRID.0 * GRID.1.powi(i));
        let mut posterior = Vec::new();
        for noise in grid() {
            let repeats = likelihood(freedom, within, noise * noise) + prior(noise, NOISE);
            for misfit in grid() {
                let rest = groups
                    .iter()
                    .map(|&(n, count, squares)| likelihood(count, squares, misfit * misfit + noise * noise / n));
                posterior.push((repeats + prior(misfit, MISFIT) + rest.sum::<f64>(), noise.ln(), misfit.ln()));
            }
        }
        let likeliest = posterior.iter().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
        let (mut all, mut noise, mut misfit) = (0.0, 0.0, 0.0);
        for (log, ln_noise, ln_misfit) in posterior {
            let weight = (log - likeliest).exp();
            (all, noise, misfit) = (all + weight, noise + weight * ln_noise, misfit + weight * ln_misfit);
        }
        // The likeliest pair has weight 1, so there is something to divide by.
        (self.noise, self.misfit) = ((2.0 * noise / all).exp(), (2.0 * misfit / all).exp());
    }

    /// Relative standard deviation of one measurement; `None` while nothing was measured twice.
    pub(super) fn noise(&self) -> Option<f64> {
        (self.repeats > 0).then(|| self.noise.sqrt())
    }

    /// By how many repeated measurements the noise is known.
    pub(super) fn repeats(&self) -> usize {
        self.repeats
    }

    /// What is believed of a schedule's latency ratio; `None` before its first measurement.
    pub(super) fn estimate(&self, key: CandidateId) -> Option<Estimate> {
        let row = self.rows.get(&key)?;
        let own = self.noise / row.count();
        let weight = self.misfit / (self.misfit + own);
        let line = self.line.line(&row.features).max(LEAST).ln();
        Some(Estimate {
            value: (line + weight * (row.mean() - line)).exp(),
            deviation: (weight * own).sqrt(),
            measurements: u32::try_from(row.ratios.len()).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
#[path = "latency_tests.rs"]
mod tests;
