//! Whom to believe: workers whose results others cannot repeat.
//!
//! Two comparisons cost nothing. A member of the front is measured again elsewhere, so two workers have measured one
//! schedule on the same prompts with the same noise; and every result brings the uncached run's scores, which are the
//! same for all. Workers that differ have each other against them; who differs from two or more, and from more than it
//! agrees with, is not believed. So one that lies is found by two that do not, and of two that differ neither is.
//!
//! What differs is told from noise by how much the differences vary from prompt to prompt ([`Spread`]): in this
//! comparison, in the search's others, and by a guess that gives way to both, because one or two prompts say little or
//! nothing of it. So the fewer the prompts, the larger a lie must be to be found: with one prompt nobody can tell a lie of
//! less than two thirds from a worker's own way of drawing that prompt. A difference must matter besides. Absent: what
//! follows for the search (`search/breeder.rs`) and for the worker (the engine).

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::{Level, Measurement, MetricValues, Paired, Spread, WorkerId};

/// Relative difference of a mean score below which two workers agree, whatever the spread says: devices and libraries
/// round differently, and a picture that differs a little scores a little differently.
const SCORE: f64 = 0.02;
/// The same for the logarithm of latency ratios, a factor of two: devices of two kinds gain differently from what is not
/// computed, and what a disturbed device measures twice it measures wrong twice. Less is averaged, not judged.
const LATENCY: f64 = std::f64::consts::LN_2;
/// How far honest workers differ on one prompt, relative to the score, before anything is known.
const SCORES: Spread = Spread::guess(0.04, 4.0);
/// How much the logarithm of one timed batch varies, before anything is known.
const TIMES: Spread = Spread::guess(0.1, 4.0);
/// What other comparisons of the search are worth, at most: devices of two kinds differ more than two of a kind.
const POOLED: f64 = 8.0;
/// Uncached runs are compared anew when the spread is known so much better.
const BETTER: f64 = 1.5;
/// Different others that it takes.
const MIN_OTHERS: usize = 2;
/// Workers that a new one's uncached scores are compared with: enough for a majority, and not a thousand.
const COMPARED: usize = 7;

/// How much honest workers differ from prompt to prompt, by metric, in all comparisons that agreed.
#[derive(Debug, Clone, Default, PartialEq)]
struct Noise(BTreeMap<String, Spread>);

impl Noise {
    fn of(&self, metric: &str) -> Spread {
        SCORES.and(self.0.get(metric).map_or(Spread::NONE, |spread| spread.worth(POOLED)))
    }

    fn learn(&mut self, a: &Measurement, b: &Measurement) {
        for (mine, other) in common(a, b) {
            let known = self.0.entry(mine.name.clone()).or_insert(Spread::NONE);
            *known = known.and(Spread::of(differences(mine, other)));
        }
    }

    fn freedom(&self) -> f64 {
        self.0.values().map(|spread| spread.freedom()).sum()
    }
}

/// The metrics that both have measured on the same number of prompts.
fn common<'a>(a: &'a Measurement, b: &'a Measurement) -> impl Iterator<Item = (&'a MetricValues, &'a MetricValues)> {
    let same = |mine: &'a MetricValues| b.metric(&mine.name).filter(|other| other.values.len() == mine.values.len());
    a.metrics.iter().filter_map(move |mine| Some((mine, same(mine)?)))
}

/// Prompt by prompt, relative to the size of the scores.
fn differences<'a>(mine: &'a MetricValues, other: &'a MetricValues) -> impl Iterator<Item = f64> + Clone + 'a {
    // Scores that are all zero differ by nothing or by all there is.
    let size = magnitude(&mine.values).min(magnitude(&other.values)).max(f64::MIN_POSITIVE);
    mine.values.iter().zip(&other.values).map(move |(a, b)| ((a - b) / size).clamp(-1e9, 1e9))
}

/// How two workers' measurements of one schedule on the same prompts differ, for people; `None` if they agree.
fn difference(a: &Measurement, b: &Measurement, noise: &Noise) -> Option<String> {
    scores(a, b, noise).or_else(|| latencies(a, b))
}

fn scores(a: &Measurement, b: &Measurement, noise: &Noise) -> Option<String> {
    common(a, b).find_map(|(mine, other)| {
        let paired = Paired::of(differences(mine, other))?.given(noise.of(&mine.name));
        let apart = paired.mean.abs();
        (apart > SCORE && apart > paired.reach(Level::RARE))
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
    let batches = [&a.latency_us, &a.baseline_latency_us, &b.latency_us, &b.baseline_latency_us];
    let spread = batches.iter().fold(TIMES, |spread, times| spread.and(Spread::of(times.iter().map(|t| t.ln()))));
    // Four fastest batches make the difference; a fastest one varies no more than any.
    let reach = spread.reach(Level::RARE) * 2.0;
    (apart > LATENCY && apart > reach).then(|| format!("latency ratio {mine:.3}, not {other:.3}"))
}

/// The uncached run's mean scores on so many prompts.
#[derive(Debug, Clone, PartialEq)]
struct Means {
    prompts: f64,
    scores: Vec<(String, f64)>,
}

impl Means {
    fn of(measurement: &Measurement) -> Self {
        let named = |m: &MetricValues| (m.name.clone(), m.baseline_mean);
        Self {
            prompts: measurement.metrics.first().map_or(1, |m| m.values.len().max(1)) as f64,
            scores: measurement.metrics.iter().map(named).collect(),
        }
    }

    /// How the uncached run's scores of one worker differ from another's.
    fn difference(&self, other: &Self, noise: &Noise) -> Option<String> {
        self.scores.iter().zip(&other.scores).find_map(|((name, mine), (_, other))| {
            let apart = (mine - other).abs() / mine.abs().min(other.abs()).max(f64::MIN_POSITIVE);
            let reach = noise.of(name).reach(Level::RARE) / self.prompts.sqrt();
            (apart > SCORE && apart > reach).then(|| format!("uncached {name} {mine:.4}, not {other:.4}"))
        })
    }
}

/// What one worker's results have shown in the company of others.
#[derive(Debug, Clone, Default, PartialEq)]
struct Record {
    agrees: BTreeSet<WorkerId>,
    differs: BTreeMap<WorkerId, String>,
}

/// Who agrees with whom about one kind of thing.
#[derive(Debug, Clone, Default, PartialEq)]
struct Comparisons(BTreeMap<WorkerId, Record>);

impl Comparisons {
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

    /// Whether two were compared before.
    fn has_compared(&self, a: &WorkerId, b: &WorkerId) -> bool {
        self.0.get(a).is_some_and(|record| record.agrees.contains(b) || record.differs.contains_key(b))
    }

    /// How many others have been compared with this worker.
    fn compared_with(&self, worker: &WorkerId) -> usize {
        self.0.get(worker).map_or(0, |record| record.agrees.len().max(record.differs.len()))
    }

    /// Why this worker is not to be believed.
    fn suspicion(&self, worker: &WorkerId) -> Option<String> {
        let record = self.0.get(worker)?;
        let differs = record.differs.len();
        let agrees = record.agrees.iter().filter(|other| !record.differs.contains_key(other)).count();
        let last = record.differs.values().next_back()?;
        (differs >= MIN_OTHERS && differs > agrees)
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
    repeated: Comparisons,
    uncached: Comparisons,
    /// The uncached run's scores on all prompts, as each worker told them last.
    means: BTreeMap<WorkerId, Means>,
    noise: Noise,
    /// How well the noise was known when uncached runs were last compared.
    known: f64,
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
            let difference = difference(measurement, theirs, &self.noise);
            // A worker's own way of drawing the prompts shows the same each time, and tells the spread only once.
            if difference.is_none() && !self.repeated.has_compared(worker, other) {
                self.noise.learn(measurement, theirs);
            }
            self.repeated.note(worker, other, difference.as_deref());
        }
        let means = Means::of(measurement);
        // Compared when it is new: what has not changed has been.
        if self.means.get(worker) != Some(&means) {
            self.uncached.forget(worker);
            self.compare(worker, &means);
            self.means.insert(worker.clone(), means);
        }
        let freedom = self.noise.freedom();
        if freedom > BETTER * self.known && self.known < POOLED * self.noise.0.len() as f64 {
            self.known = freedom;
            self.uncached = Comparisons::default();
            for (worker, means) in self.means.clone() {
                self.compare(&worker, &means);
            }
        }
    }

    /// Holds an uncached run against some of the others'.
    fn compare(&mut self, worker: &WorkerId, means: &Means) {
        for (other, theirs) in self.means.iter().filter(|(other, _)| *other != worker).take(COMPARED) {
            self.uncached.note(worker, other, means.difference(theirs, &self.noise).as_deref());
        }
    }

    /// Whether a result of this worker was compared with those of others.
    pub fn knows(&self, worker: &WorkerId) -> bool {
        self.means.contains_key(worker)
    }

    /// Whether enough others have repeated results of this worker; also where there are too few to tell.
    pub fn is_proven(&self, worker: &WorkerId) -> bool {
        self.means.len() <= MIN_OTHERS || self.repeated.compared_with(worker) >= MIN_OTHERS
    }

    /// Who is not to be believed, and why: the worst, because without it others may look better.
    pub fn suspect(&self) -> Option<(WorkerId, String)> {
        [&self.repeated, &self.uncached].into_iter().find_map(|comparisons| {
            let worst = comparisons.suspects().into_iter().next()?;
            Some((worst.clone(), comparisons.suspicion(worst)?))
        })
    }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
