//! Whom to believe: workers whose results others cannot repeat.
//!
//! Two comparisons cost nothing. A member of the front is measured again elsewhere, so two workers have measured one
//! schedule on the same prompts with the same noise; and every result brings the uncached run's scores, which are the
//! same for all. Workers that differ have each other against them; who differs from two or more, and from more than it
//! agrees with, is not believed. So one that lies is found by two that do not, and of two that differ neither is.
//!
//! What differs is told from noise by the measurements' own spread, and must matter besides. Absent: what follows for
//! the search (`search/breeder.rs`) and for the worker (the engine).

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::{Measurement, MetricValues, WorkerId};

/// Relative difference of a mean score below which two workers agree, whatever the spread says: devices and libraries
/// round differently, and a picture that differs a little scores a little differently.
const SCORE: f64 = 0.02;
/// The same for the logarithm of latency ratios, a factor of two: devices of two kinds gain differently from what is not
/// computed, and what a disturbed device measures twice it measures wrong twice. Less is averaged, not judged.
const LATENCY: f64 = std::f64::consts::LN_2;
/// Standard errors beyond which a difference is not noise.
const ERRORS: f64 = 4.0;
/// Different others that it takes.
const WITNESSES: usize = 2;
/// Workers that a new one's uncached scores are compared with: enough for a majority, and not a thousand.
const COMPARED: usize = 7;

/// How two workers' measurements of one schedule on the same prompts differ, for people; `None` if they agree.
pub fn difference(a: &Measurement, b: &Measurement) -> Option<String> {
    scores(a, b).or_else(|| latencies(a, b))
}

fn scores(a: &Measurement, b: &Measurement) -> Option<String> {
    a.metrics.iter().find_map(|mine| {
        let other = b.metric(&mine.name).filter(|other| other.values.len() == mine.values.len())?;
        let n = mine.values.len() as f64;
        let differences = || mine.values.iter().zip(&other.values).map(|(a, b)| a - b);
        let mean = differences().sum::<f64>() / n;
        let variance = differences().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let matters = mean.abs() > SCORE * magnitude(&mine.values).min(magnitude(&other.values));
        (matters && mean.abs() > ERRORS * (variance / n).sqrt())
            .then(|| format!("{} {:.4}, not {:.4}", mine.name, mine.mean(), other.mean()))
    })
}

/// The mean size of values, of whichever sign.
fn magnitude(values: &[f64]) -> f64 {
    values.iter().map(|v| v.abs()).sum::<f64>() / values.len() as f64
}

fn latencies(a: &Measurement, b: &Measurement) -> Option<String> {
    let (mine, other) = (a.latency_ratio(), b.latency_ratio());
    let apart = (mine / other).ln().abs();
    let spread = |m: &Measurement| spread(&m.latency_us) + spread(&m.baseline_latency_us);
    let noise = (spread(a) + spread(b)).sqrt();
    (apart > LATENCY && apart > ERRORS * noise).then(|| format!("latency ratio {mine:.3}, not {other:.3}"))
}

/// The variance of the samples' logarithms.
fn spread(samples: &[f64]) -> f64 {
    let n = samples.len() as f64;
    let mean = samples.iter().map(|s| s.ln()).sum::<f64>() / n;
    samples.iter().map(|s| (s.ln() - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0)
}

/// How the uncached run's scores of one worker differ from another's.
fn uncached(a: &[(String, f64)], b: &[(String, f64)]) -> Option<String> {
    a.iter().zip(b).find_map(|((name, mine), (_, other))| {
        let matters = (mine - other).abs() > SCORE * mine.abs().min(other.abs());
        matters.then(|| format!("uncached {name} {mine:.4}, not {other:.4}"))
    })
}

/// What one worker's results have shown in the company of others.
#[derive(Debug, Clone, Default, PartialEq)]
struct Record {
    agrees: BTreeSet<WorkerId>,
    differs: BTreeMap<WorkerId, String>,
}

/// Who agrees with whom about one kind of thing.
#[derive(Debug, Clone, Default, PartialEq)]
struct Opinions(BTreeMap<WorkerId, Record>);

impl Opinions {
    fn note(&mut self, a: &WorkerId, b: &WorkerId, difference: Option<&str>) {
        for (one, other) in [(a, b), (b, a)] {
            let record = self.0.entry(one.clone()).or_default();
            match difference {
                Some(text) => drop(record.differs.insert(other.clone(), text.to_owned())),
                None => drop(record.agrees.insert(other.clone())),
            }
        }
    }

    fn forget(&mut self, worker: &WorkerId) {
        self.0.remove(worker);
        for record in self.0.values_mut() {
            record.agrees.remove(worker);
            record.differs.remove(worker);
        }
    }

    /// How many others have been compared with this worker.
    fn witnesses(&self, worker: &WorkerId) -> usize {
        self.0.get(worker).map_or(0, |record| record.agrees.len().max(record.differs.len()))
    }

    /// Why this worker is not to be believed.
    fn suspicion(&self, worker: &WorkerId) -> Option<String> {
        let record = self.0.get(worker)?;
        let differs = record.differs.len();
        let agrees = record.agrees.iter().filter(|other| !record.differs.contains_key(other)).count();
        let last = record.differs.values().next_back()?;
        (differs >= WITNESSES && differs > agrees)
            .then(|| format!("{differs} workers measure something else than it does, {agrees} the same: {last}"))
    }

    /// Those whom most speak against, the worst first.
    fn suspects(&self) -> Vec<&WorkerId> {
        let mut suspects: Vec<_> = self.0.keys().filter(|worker| self.suspicion(worker).is_some()).collect();
        suspects.sort_by_key(|worker| std::cmp::Reverse(self.0[worker].differs.len()));
        suspects
    }
}

/// Who can be believed in one search.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trust {
    repeated: Opinions,
    uncached: Opinions,
    /// The uncached run's mean scores on all prompts, as each worker told them last.
    means: BTreeMap<WorkerId, Vec<(String, f64)>>,
}

impl Trust {
    /// A result on all prompts came in; `others` are measurements of the same schedule on the same prompts.
    pub fn tell<'a>(
        &mut self,
        worker: &WorkerId,
        measurement: &Measurement,
        others: impl Iterator<Item = (&'a WorkerId, &'a Measurement)>,
    ) {
        for (other, theirs) in others.filter(|(other, _)| *other != worker) {
            self.repeated.note(worker, other, difference(measurement, theirs).as_deref());
        }
        let named = |m: &MetricValues| (m.name.clone(), m.baseline_mean);
        let means: Vec<_> = measurement.metrics.iter().map(named).collect();
        // Compared when it is new: what has not changed has been.
        if self.means.get(worker) == Some(&means) {
            return;
        }
        let opinions = &mut self.uncached;
        opinions.forget(worker);
        for (other, theirs) in self.means.iter().filter(|(other, _)| *other != worker).take(COMPARED) {
            opinions.note(worker, other, uncached(&means, theirs).as_deref());
        }
        self.means.insert(worker.clone(), means);
    }

    /// Whether a result of this worker was compared with those of others.
    pub fn knows(&self, worker: &WorkerId) -> bool {
        self.means.contains_key(worker)
    }

    /// Whether enough others have repeated results of this worker; also where there are too few to tell.
    pub fn is_proven(&self, worker: &WorkerId) -> bool {
        self.means.len() <= WITNESSES || self.repeated.witnesses(worker) >= WITNESSES
    }

    /// Who is not to be believed, and why: the worst, because without it others may look better.
    pub fn suspect(&self) -> Option<(WorkerId, String)> {
        [&self.repeated, &self.uncached].into_iter().find_map(|opinions| {
            let worst = opinions.suspects().into_iter().next()?;
            Some((worst.clone(), opinions.suspicion(worst)?))
        })
    }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
