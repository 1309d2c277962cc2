//! What is believed of latency ratios: each schedule's own measurements, and how latency follows what is computed.
//!
//! A measurement's logarithm is its schedule's, plus noise; a schedule's is that of a line through what it computes
//! ([`Costs`]), plus what the line misses. With `n` measurements of mean `m`, a line of `f`, noise `σ` and misfit `τ`,
//! the estimate is `f + w (m - f)` in logarithms, with `w = τ² / (τ² + σ²/n)`. So on a quiet machine a measurement counts
//! nearly alone, and on a noisy one a lucky one is believed as little as it deserves.
//!
//! The estimate's variance is what is left when `σ` and `τ` were known, `w σ²/n`, but they are not, nor is the line: so it
//! is the mean of `w' σ'²/n + (w' - w)² (m - f)²` over all pairs by their posterior, plus `(1 - w)²` times the variance of
//! the line. That makes it true where a schedule was measured once or twice and nothing has been repeated yet.
//!
//! `σ` and `τ` are the geometric means of their posterior on a grid, given how far repeated measurements are from their
//! means, how far those means are from the line, and a prior. (The likeliest pair jumps: much noise and no misfit
//! explains results about as well as a little less noise and a large misfit, and believes luck.) The prior of the noise is
//! centred on how much the uncached batches of each measurement vary: they are the same work, and every measurement has
//! some. What is far out counts as [`CLIP`] times the median, because one disturbed worker must not make all others look
//! noisy.
//!
//! Two things are known without measuring. The uncached run is as fast as itself: its ratio is 1, and its measurements
//! tell the noise. And no schedule takes less than the share of the uncached work that it does of the kind of component
//! that it does least of (but for [`PER_RUN`]), nor much less than its share of the multiply-accumulates ([`PER_MAC`]); what is measured below
//! that is noise. Absent: where a measurement comes from.

use std::collections::BTreeMap;

use evocache_proto::domain::{CandidateId, Measurement, Schedule, Spread};

use super::costs::Costs;
use super::genome::Space;
use crate::estimate::Estimate;

/// Prior deviations of noise and misfit, and how sure the prior is: the deviation of their logarithms.
const NOISE: (f64, f64) = (0.01, 1.5);
/// How sure the uncached batches are of the noise: they vary as a ratio of two fastest does, to within a factor of two.
const PAIRED: f64 = 0.7;
const MISFIT: (f64, f64) = (0.02, 0.7);
/// The grid that both are looked for on: the first, the ratio of neighbours, how many.
const GRID: (f64, f64, i32) = (0.001, 1.05, 130);
/// The logarithm of what is too unlikely to count.
const NOTHING: f64 = -20.0;
/// The line is improved so often by a weighted regression: its errors are relative.
const ROUNDS: usize = 2;
/// The line is nowhere lower.
const LEAST: f64 = 0.01;
/// A component that runs less often may take less time each time, by the machine's caches, by this factor.
const PER_RUN: f64 = 1.05;
/// The multiply-accumulates that a schedule does may take less time each than those of the uncached run, by this factor.
const PER_MAC: f64 = 1.5;
/// Farther out than this, in standard deviations by the median, nothing counts.
const CLIP: f64 = 3.5;
/// The median of the magnitude of a standard normal variable.
const MEDIAN: f64 = 0.6745;

/// A measurement, as far as latency goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing<'a> {
    /// Latency over the uncached latency.
    ratio: f64,
    /// The uncached batches of the same measurement, in any unit.
    uncached: &'a [f64],
    /// Multiply-accumulates over the uncached run's.
    macs: f64,
}

impl<'a> From<&'a Measurement> for Timing<'a> {
    fn from(m: &'a Measurement) -> Self {
        Self {
            ratio: m.latency_ratio(),
            uncached: &m.baseline_latency_us,
            macs: m.macs as f64 / m.baseline_macs.max(1) as f64,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Row {
    features: Box<[f64]>,
    /// Logarithms of the measured ratios.
    ratios: Vec<f64>,
    /// The ratio is no smaller.
    least: f64,
    /// Whether it is the uncached run, whose ratio is 1.
    uncached: bool,
}

impl Row {
    fn count(&self) -> f64 {
        self.ratios.len() as f64
    }

    /// The mean logarithm; that of the uncached run is known.
    fn mean(&self) -> f64 {
        if self.uncached { 0.0 } else { self.ratios.iter().sum::<f64>() / self.count() }
    }

    /// How many of the measurements are free to tell the noise.
    fn freedom(&self) -> f64 {
        if self.uncached { self.count() } else { self.count() - 1.0 }
    }

    fn line(&self, line: &Costs) -> f64 {
        line.line(&self.features).max(self.least)
    }
}

/// What is believed of a latency ratio, and how it comes about.
struct Blend {
    value: f64,
    /// Of the measurements, beside the line.
    weight: f64,
    /// The ratio by the line.
    line: f64,
    /// How far the measurements are from that, in logarithms.
    off: f64,
}

/// Deviations of noise and misfit, and how likely they are together: first the logarithm, then as a share of the likeliest.
#[derive(Debug, Clone, Copy)]
struct Pair {
    likely: f64,
    noise: f64,
    misfit: f64,
}

/// What is left open after so many measurements, in squared logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Uncertainty {
    /// The mean of `w' σ'²/n`.
    variance: f64,
    /// The mean of `(w' - w)²`.
    weight: f64,
}

/// All latency ratios of one search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Latencies {
    rows: BTreeMap<CandidateId, Row>,
    line: Costs,
    /// What the line sees of the uncached run.
    whole: Vec<f64>,
    /// Deviations of the logarithms of each measurement's uncached batches.
    paired: Vec<f64>,
    /// By the number of measurements.
    uncertainty: BTreeMap<usize, Uncertainty>,
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
        let line = Costs::new(space);
        let steps = space.steps().first().copied().unwrap_or(1);
        let whole = Schedule::all_compute(space.layout().clone(), steps);
        let mut latencies = Self {
            rows: BTreeMap::new(),
            whole: whole.map_or_else(|_| vec![], |whole| line.features_of(space, &whole)),
            line,
            paired: vec![],
            uncertainty: BTreeMap::new(),
            noise: NOISE.0 * NOISE.0,
            misfit: MISFIT.0 * MISFIT.0,
            repeats: 0,
        };
        latencies.fit_deviations();
        latencies
    }

    /// Another measurement of a schedule; `key` is the first candidate that had it.
    pub(super) fn tell(&mut self, space: &Space, key: CandidateId, schedule: &Schedule, timing: Timing<'_>) {
        let paired = Spread::of(timing.uncached.iter().map(|t| t.max(f64::MIN_POSITIVE).ln()));
        if paired.freedom() > 0.0 {
            self.paired.push(paired.variance().sqrt());
        }
        let (line, whole) = (&self.line, &self.whole);
        let row = self.rows.entry(key).or_insert_with(|| {
            let features = line.features_of(space, schedule).into_boxed_slice();
            let shares = features.iter().zip(whole).filter(|(_, all)| **all > 0.0).map(|(some, all)| some / all);
            let share = shares.fold(1.0, f64::min);
            let least = (share / PER_RUN).max(timing.macs / PER_MAC).clamp(LEAST, 1.0);
            Row { uncached: *features == **whole, features, ratios: Vec::with_capacity(1), least }
        });
        self.repeats += usize::from(row.uncached || !row.ratios.is_empty());
        row.ratios.push(timing.ratio.max(f64::MIN_POSITIVE).ln());
    }

    /// Learns the line, the noise and the misfit anew.
    pub(super) fn fit(&mut self) {
        for _ in 0..ROUNDS {
            let line = self.line.clone();
            self.line.fit(self.rows.values().map(|row| {
                let old = row.line(&line);
                (&row.features, old * (1.0 + row.mean() - old.ln()), row.count() / (old * old))
            }));
        }
        self.fit_deviations();
    }

    /// Noise and misfit by all that was measured.
    fn fit_deviations(&mut self) {
        let repeated = || self.rows.values().filter(|row| row.freedom() > 0.0);
        let within = squares(
            repeated()
                .flat_map(|row| {
                    let (mean, scale) = (row.mean(), (row.count() / row.freedom()).sqrt());
                    row.ratios.iter().map(move |x| (x - mean).abs() * scale)
                })
                .collect(),
        );
        // Each deviation was scaled up to a whole one; there are as many as measurements, but fewer are free.
        let measurements: f64 = repeated().map(Row::count).sum();
        let freedom = self.repeats as f64;
        let within = if measurements > 0.0 { within * freedom / measurements } else { 0.0 };
        let mut by_count: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for row in self.rows.values().filter(|row| !row.uncached) {
            let residual = row.mean() - row.line(&self.line).ln();
            by_count.entry(row.ratios.len()).or_default().push(residual.abs());
        }
        let counts: Vec<usize> = std::iter::once(1).chain(by_count.keys().copied().filter(|&n| n > 1)).collect();
        // The line has used up some of the residuals.
        let kept = 1.0 - (self.line.len() as f64 / self.rows.len().max(1) as f64).min(0.9);
        let groups: Vec<(f64, f64, f64)> =
            by_count.into_iter().map(|(n, rest)| (n as f64, kept * rest.len() as f64, squares(rest))).collect();
        let grid = || (0..GRID.2).map(|i| GRID.0 * GRID.1.powi(i));
        let noise_prior = self.noise_prior();
        let mut posterior = Vec::with_capacity((GRID.2 * GRID.2) as usize);
        for noise in grid() {
            let repeats = likelihood(freedom, within, noise * noise) + prior(noise, noise_prior);
            for misfit in grid() {
                let rest = groups
                    .iter()
                    .map(|&(n, count, squares)| likelihood(count, squares, misfit * misfit + noise * noise / n));
                let likely = repeats + prior(misfit, MISFIT) + rest.sum::<f64>();
                posterior.push(Pair { likely, noise, misfit });
            }
        }
        let likeliest = posterior.iter().map(|pair| pair.likely).fold(f64::NEG_INFINITY, f64::max);
        // What weighs nothing adds nothing.
        posterior.retain(|pair| pair.likely > likeliest + NOTHING);
        let (mut all, mut noise, mut misfit) = (0.0, 0.0, 0.0);
        for pair in &mut posterior {
            pair.likely = (pair.likely - likeliest).exp();
            all += pair.likely;
            noise += pair.likely * pair.noise.ln();
            misfit += pair.likely * pair.misfit.ln();
        }
        // The likeliest pair has weight 1, so there is something to divide by.
        (self.noise, self.misfit) = ((2.0 * noise / all).exp(), (2.0 * misfit / all).exp());
        self.uncertainty = counts.into_iter().map(|n| (n, self.uncertainty_after(n, &posterior, all))).collect();
    }

    /// What is left open after `n` measurements, over pairs that are likely by `all` together.
    fn uncertainty_after(&self, n: usize, posterior: &[Pair], all: f64) -> Uncertainty {
        let weight = |noise: f64, misfit: f64| misfit / (misfit + noise / n as f64);
        let chosen = weight(self.noise, self.misfit);
        let mut uncertainty = Uncertainty { variance: 0.0, weight: 0.0 };
        for &Pair { likely, noise, misfit } in posterior {
            let noise = noise * noise;
            let weight = weight(noise, misfit * misfit);
            uncertainty.variance += likely / all * weight * noise / n as f64;
            uncertainty.weight += likely / all * (weight - chosen).powi(2);
        }
        uncertainty
    }

    /// What the uncached batches say of the noise.
    fn noise_prior(&self) -> (f64, f64) {
        if self.paired.is_empty() {
            return NOISE;
        }
        let n = self.paired.len() as f64;
        let deviation = (squares(self.paired.clone()) / n).sqrt();
        (deviation.max(GRID.0), PAIRED.hypot(NOISE.1 / n.sqrt()))
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
    pub(super) fn value(&self, key: CandidateId) -> Option<f64> {
        self.rows.get(&key).map(|row| self.blend(row).value)
    }

    fn blend(&self, row: &Row) -> Blend {
        let (weight, line) = (self.misfit / (self.misfit + self.noise / row.count()), row.line(&self.line));
        let off = row.mean() - line.ln();
        let value = if row.uncached { 1.0 } else { (line.ln() + weight * off).exp().max(row.least) };
        Blend { value, weight, line, off }
    }

    /// The same with its deviation, which takes longer to tell.
    pub(super) fn estimate(&self, key: CandidateId) -> Option<Estimate> {
        let row = self.rows.get(&key)?;
        let measurements = u32::try_from(row.ratios.len()).unwrap_or(u32::MAX);
        let Blend { value, weight, line, off } = self.blend(row);
        if row.uncached {
            return Some(Estimate { value, deviation: 0.0, measurements });
        }
        // A number of measurements that is new since the last fit has no more left open than a smaller one.
        let known = self.uncertainty.range(..=row.ratios.len()).next_back();
        let uncertainty =
            known.map_or(Uncertainty { variance: self.noise, weight: 0.0 }, |(_, uncertainty)| *uncertainty);
        let line_variance = self.line.variance_at(&row.features, self.noise + self.misfit) / line.powi(2);
        let variance = uncertainty.variance + uncertainty.weight * off.powi(2) + (1.0 - weight).powi(2) * line_variance;
        Some(Estimate { value, deviation: variance.sqrt(), measurements })
    }
}

#[cfg(test)]
#[path = "latency_tests.rs"]
mod tests;
