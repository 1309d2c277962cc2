//! The latency model: estimates latency ratios from each schedule's own measurements and from a cost model over all
//! schedules.
//!
//! The logarithm of a measurement is its schedule's, plus noise of deviation `σ`. The logarithm of a schedule's ratio
//! is that of the cost model's line ([`Costs`]), plus a misfit of deviation `τ`. With `n` measurements of mean `m` and
//! the line `f`, the estimate is `f + w (m - f)` in logarithms, with `w = τ² / (τ² + σ²/n)`. On a quiet machine the
//! measurement dominates; on a noisy one the line does, so a lucky measurement has little weight.
//!
//! If `σ`, `τ` and the line were known, the variance would be `w σ²/n`. They are not, so the variance is the posterior
//! mean of `w' σ'²/n + (w' - w)² (m - f)²` over all pairs `(σ', τ')`, plus `(1 - w)²` times the variance of the line.
//! This keeps it accurate where a schedule was measured once or twice and before the first repeats.
//!
//! `σ` and `τ` are the geometric means of their posterior on a grid, given the deviations of repeats from their means,
//! the deviations of these means from the line, and a prior. (The most likely pair is unstable: large noise without
//! misfit explains the results about as well as slightly less noise with a large misfit, which would trust lucky
//! measurements.) The prior of the noise is centered on the variation of the uncached batches within each measurement,
//! which do equal work. Outliers are clipped at [`CLIP`] deviations, estimated from the median, so that one disturbed
//! worker does not make all others look noisy.
//!
//! Two facts need no measurement. The ratio of the uncached run is 1, so its measurements show the noise. And a
//! schedule's ratio is at least the smallest share that it computes of any kind of component (within [`PER_RUN`]), and
//! not much below its share of multiply-accumulates ([`PER_MAC`]); smaller measurements are noise. Knows nothing of
//! workers.

use std::collections::BTreeMap;

use evocache_proto::domain::{CandidateId, Measurement, Schedule, Spread};

use super::costs::Costs;
use super::genome::Space;
use crate::estimate::Estimate;

/// The prior of the noise: its median, and the deviation of its logarithm.
const NOISE: (f64, f64) = (0.01, 1.5);
/// The deviation of the logarithm of the noise when estimated from uncached batches: these vary as much as a ratio of
/// two minima, within about a factor of two.
const PAIRED: f64 = 0.7;
/// The prior of the misfit: its median, and the deviation of its logarithm.
const MISFIT: (f64, f64) = (0.02, 0.7);
/// The grid of both deviations: the first value, the ratio of neighbors, the number of values.
const GRID: (f64, f64, i32) = (0.001, 1.05, 130);
/// Pairs whose log posterior is lower than the maximum by more than this are ignored.
const NOTHING: f64 = -20.0;
/// Number of reweighted regressions per fit of the line, because its errors are relative.
const ROUNDS: usize = 2;
/// The smallest ratio of the line.
const LEAST: f64 = 0.01;
/// A component that runs less often may run faster by this factor, because of the machine's caches.
const PER_RUN: f64 = 1.05;
/// A schedule's multiply-accumulates may run faster than the uncached run's by this factor.
const PER_MAC: f64 = 1.5;
/// Residuals are clipped to this many standard deviations, estimated from the median.
const CLIP: f64 = 3.5;
/// The median of the absolute value of a standard normal variable.
const MEDIAN: f64 = 0.6745;

/// The timings of a measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing<'a> {
    /// Latency over the uncached latency.
    ratio: f64,
    /// Times of the uncached batches of the same measurement, in any unit.
    uncached: &'a [f64],
    /// Multiply-accumulates relative to the uncached run's.
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
    /// A lower bound of the ratio.
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

    /// Degrees of freedom of the measurements for the noise.
    fn freedom(&self) -> f64 {
        if self.uncached { self.count() } else { self.count() - 1.0 }
    }

    fn line(&self, line: &Costs) -> f64 {
        line.line(&self.features).max(self.least)
    }
}

/// An estimated latency ratio and its parts.
struct Blend {
    value: f64,
    /// Weight of the measurements; the line's is the rest.
    weight: f64,
    /// The line's prediction.
    line: f64,
    /// The logarithm of the measured mean over the line's prediction.
    off: f64,
}

/// A pair of deviations with its posterior: first as a logarithm, then relative to the largest.
#[derive(Debug, Clone, Copy)]
struct Pair {
    likely: f64,
    noise: f64,
    misfit: f64,
}

/// The variance that remains after a number of measurements, in squared logarithms.
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
    /// The features of the uncached run.
    whole: Vec<f64>,
    /// By measurement: the deviation of the logarithms of its uncached batches.
    paired: Vec<f64>,
    /// By the number of measurements.
    uncertainty: BTreeMap<usize, Uncertainty>,
    /// Variance of one measurement, and of schedules around the line, in logarithms.
    noise: f64,
    misfit: f64,
    /// Number of repeats that inform the noise.
    repeats: usize,
}

/// The sum of squares, with outliers clipped.
fn squares(mut magnitudes: Vec<f64>) -> f64 {
    let middle = magnitudes.len() / 2;
    if magnitudes.is_empty() {
        return 0.0;
    }
    let median = *magnitudes.select_nth_unstable_by(middle, f64::total_cmp).1;
    let most = CLIP * median / MEDIAN;
    magnitudes.into_iter().map(|x| x.min(most).powi(2)).sum()
}

/// The log likelihood of `count` normal observations with this sum of squares, up to a constant.
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

    /// Takes a measurement of a schedule; `key` is the first candidate with this schedule.
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

    /// Refits the line, the noise and the misfit.
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

    /// Estimates noise and misfit from all measurements.
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
        // Deviations were scaled to unit degrees of freedom, so their sum is scaled back to the actual number.
        let measurements: f64 = repeated().map(Row::count).sum();
        let freedom = self.repeats as f64;
        let within = if measurements > 0.0 { within * freedom / measurements } else { 0.0 };
        let mut by_count: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for row in self.rows.values().filter(|row| !row.uncached) {
            let residual = row.mean() - row.line(&self.line).ln();
            by_count.entry(row.ratios.len()).or_default().push(residual.abs());
        }
        let counts: Vec<usize> = std::iter::once(1).chain(by_count.keys().copied().filter(|&n| n > 1)).collect();
        // The line's coefficients use degrees of freedom of the residuals.
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
        // Negligible pairs are dropped.
        posterior.retain(|pair| pair.likely > likeliest + NOTHING);
        let (mut all, mut noise, mut misfit) = (0.0, 0.0, 0.0);
        for pair in &mut posterior {
            pair.likely = (pair.likely - likeliest).exp();
            all += pair.likely;
            noise += pair.likely * pair.noise.ln();
            misfit += pair.likely * pair.misfit.ln();
        }
        // The most likely pair has weight 1, so `all` is positive.
        (self.noise, self.misfit) = ((2.0 * noise / all).exp(), (2.0 * misfit / all).exp());
        self.uncertainty = counts.into_iter().map(|n| (n, self.uncertainty_after(n, &posterior, all))).collect();
    }

    /// The uncertainty after `n` measurements; `all` is the sum of the posterior.
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

    /// The prior of the noise, from the uncached batches if there are any.
    fn noise_prior(&self) -> (f64, f64) {
        if self.paired.is_empty() {
            return NOISE;
        }
        let n = self.paired.len() as f64;
        let deviation = (squares(self.paired.clone()) / n).sqrt();
        (deviation.max(GRID.0), PAIRED.hypot(NOISE.1 / n.sqrt()))
    }

    /// Relative standard deviation of one measurement; `None` before the first repeat.
    pub(super) fn noise(&self) -> Option<f64> {
        (self.repeats > 0).then(|| self.noise.sqrt())
    }

    /// The number of repeats that inform the noise.
    pub(super) fn repeats(&self) -> usize {
        self.repeats
    }

    /// The estimated latency ratio of a schedule; `None` before its first measurement.
    pub(super) fn value(&self, key: CandidateId) -> Option<f64> {
        self.rows.get(&key).map(|row| self.blend(row).value)
    }

    fn blend(&self, row: &Row) -> Blend {
        let (weight, line) = (self.misfit / (self.misfit + self.noise / row.count()), row.line(&self.line));
        let off = row.mean() - line.ln();
        let value = if row.uncached { 1.0 } else { (line.ln() + weight * off).exp().max(row.least) };
        Blend { value, weight, line, off }
    }

    /// The estimated latency ratio with its deviation, which is slower to compute than the value alone.
    pub(super) fn estimate(&self, key: CandidateId) -> Option<Estimate> {
        let row = self.rows.get(&key)?;
        let measurements = u32::try_from(row.ratios.len()).unwrap_or(u32::MAX);
        let Blend { value, weight, line, off } = self.blend(row);
        if row.uncached {
            return Some(Estimate { value, deviation: 0.0, measurements });
        }
        // A count that is new since the last fit uses the uncertainty of the next smaller count, which is no smaller.
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
