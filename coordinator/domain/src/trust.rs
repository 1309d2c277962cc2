//! Finds workers whose results other workers cannot reproduce.
//!
//! Two comparisons need no extra measurements. Members of the front are repeated on other workers, so two workers
//! measure one schedule on the same prompts with the same seeds. And every result includes the uncached run's scores,
//! which should be equal on all workers. A worker is a suspect if it differs from at least two others and from more
//! than it agrees with. So two honest workers expose one that reports wrong results, and of two workers that differ
//! neither is a suspect.
//!
//! A difference is separated from noise by its variation from prompt to prompt ([`Spread`]): in this comparison, in the
//! search's other comparisons, and by a prior that matters while there are few prompts. The fewer the prompts, the
//! larger an error must be to be found: with one prompt, an error below two thirds cannot be distinguished from a
//! device that renders that prompt differently. A difference must also be large enough to matter. Does not act on a
//! suspect: the search excludes its results (`search/results.rs`), and the engine quarantines it.

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::{Level, Measurement, MetricValues, Paired, Spread, WorkerId};

/// Two workers agree if their mean scores differ by less, relatively, whatever the spread: devices and libraries round
/// differently, and slightly different pictures score slightly differently.
const SCORE: f64 = 0.02;
/// The same for the logarithm of latency ratios, a factor of two: caching saves a different share on another kind of
/// device, and a disturbed device may be wrong twice in the same way. Smaller differences are averaged.
const LATENCY: f64 = std::f64::consts::LN_2;
/// The prior of how much honest workers differ on one prompt, relative to the score.
const SCORES: Spread = Spread::guess(0.04, 4.0);
/// The prior of how much the logarithm of one timed batch varies.
const TIMES: Spread = Spread::guess(0.1, 4.0);
/// The largest weight of the search's other comparisons: two kinds of devices differ more than two devices of a kind.
const POOLED: f64 = 8.0;
/// Uncached runs are compared again when the degrees of freedom of the spread have grown by this factor.
const BETTER: f64 = 1.5;
/// A suspect differs from at least this many others.
const MIN_OTHERS: usize = 2;
/// A new worker's uncached scores are compared with those of at most this many others: enough for a majority.
const COMPARED: usize = 7;

/// The spread of differences from prompt to prompt between workers that agreed, by metric.
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

/// Pairs of equal metrics measured on the same number of prompts.
fn common<'a>(a: &'a Measurement, b: &'a Measurement) -> impl Iterator<Item = (&'a MetricValues, &'a MetricValues)> {
    let same = |mine: &'a MetricValues| b.metric(&mine.name).filter(|other| other.values.len() == mine.values.len());
    a.metrics.iter().filter_map(move |mine| Some((mine, same(mine)?)))
}

/// Differences prompt by prompt, relative to the magnitude of the scores.
fn differences<'a>(mine: &'a MetricValues, other: &'a MetricValues) -> impl Iterator<Item = f64> + Clone + 'a {
    // If all scores are zero, the relative difference is 0 or clamped.
    let size = magnitude(&mine.values).min(magnitude(&other.values)).max(f64::MIN_POSITIVE);
    mine.values.iter().zip(&other.values).map(move |(a, b)| ((a - b) / size).clamp(-1e9, 1e9))
}

/// A description of how two workers' measurements of one schedule on the same prompts differ; `None` if they agree.
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

/// The mean of the absolute values.
fn magnitude(values: &[f64]) -> f64 {
    values.iter().map(|v| v.abs()).sum::<f64>() / values.len() as f64
}

fn latencies(a: &Measurement, b: &Measurement) -> Option<String> {
    let (mine, other) = (a.latency_ratio(), b.latency_ratio());
    let apart = (mine / other).ln().abs();
    let batches = [&a.latency_us, &a.baseline_latency_us, &b.latency_us, &b.baseline_latency_us];
    let spread = batches.iter().fold(TIMES, |spread, times| spread.and(Spread::of(times.iter().map(|t| t.ln()))));
    // Four minima enter the difference, each no more variable than a single batch: twice the deviation of one.
    let reach = spread.reach(Level::RARE) * 2.0;
    (apart > LATENCY && apart > reach).then(|| format!("latency ratio {mine:.3}, not {other:.3}"))
}

/// The uncached run's mean scores and the number of prompts.
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

    /// A description of how two workers' uncached scores differ; `None` if they agree.
    fn difference(&self, other: &Self, noise: &Noise) -> Option<String> {
        self.scores.iter().zip(&other.scores).find_map(|((name, mine), (_, other))| {
            let apart = (mine - other).abs() / mine.abs().min(other.abs()).max(f64::MIN_POSITIVE);
            let reach = noise.of(name).reach(Level::RARE) / self.prompts.sqrt();
            (apart > SCORE && apart > reach).then(|| format!("uncached {name} {mine:.4}, not {other:.4}"))
        })
    }
}

/// The outcomes of comparing one worker with others.
#[derive(Debug, Clone, Default, PartialEq)]
struct Record {
    agrees: BTreeSet<WorkerId>,
    differs: BTreeMap<WorkerId, String>,
}

/// The comparisons between workers in one respect.
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

    /// Whether two workers were compared before.
    fn has_compared(&self, a: &WorkerId, b: &WorkerId) -> bool {
        self.0.get(a).is_some_and(|record| record.agrees.contains(b) || record.differs.contains_key(b))
    }

    /// Number of other workers that this one was compared with.
    fn compared_with(&self, worker: &WorkerId) -> usize {
        self.0.get(worker).map_or(0, |record| record.agrees.len().max(record.differs.len()))
    }

    /// Why this worker is a suspect; `None` if it is not.
    fn suspicion(&self, worker: &WorkerId) -> Option<String> {
        let record = self.0.get(worker)?;
        let differs = record.differs.len();
        let agrees = record.agrees.iter().filter(|other| !record.differs.contains_key(other)).count();
        let last = record.differs.values().next_back()?;
        (differs >= MIN_OTHERS && differs > agrees)
            .then(|| format!("{differs} workers disagree with its results, {agrees} agree: {last}"))
    }

    /// The suspects, those that differ from most others first.
    fn suspects(&self) -> Vec<&WorkerId> {
        let mut suspects: Vec<_> = self.0.keys().filter(|worker| self.suspicion(worker).is_some()).collect();
        suspects.sort_by_key(|worker| std::cmp::Reverse(self.0[worker].differs.len()));
        suspects
    }
}

/// The comparisons of all workers of one search.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trust {
    repeated: Comparisons,
    uncached: Comparisons,
    /// Each worker's latest uncached scores on all prompts.
    means: BTreeMap<WorkerId, Means>,
    noise: Noise,
    /// Degrees of freedom of the noise when all uncached runs were last compared.
    known: f64,
}

impl Trust {
    /// Takes a result on all prompts; `others` are measurements of the same schedule on the same prompts.
    pub fn tell<'a>(
        &mut self,
        worker: &WorkerId,
        measurement: &Measurement,
        others: impl Iterator<Item = (&'a WorkerId, &'a Measurement)>,
    ) {
        for (other, theirs) in others.filter(|(other, _)| *other != worker) {
            let difference = difference(measurement, theirs, &self.noise);
            // A device renders a prompt the same way each time, so a pair of workers informs the spread only once.
            if difference.is_none() && !self.repeated.has_compared(worker, other) {
                self.noise.learn(measurement, theirs);
            }
            self.repeated.note(worker, other, difference.as_deref());
        }
        let means = Means::of(measurement);
        // Unchanged scores were compared already.
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

    /// Compares a worker's uncached run with those of some others.
    fn compare(&mut self, worker: &WorkerId, means: &Means) {
        for (other, theirs) in self.means.iter().filter(|(other, _)| *other != worker).take(COMPARED) {
            self.uncached.note(worker, other, means.difference(theirs, &self.noise).as_deref());
        }
    }

    /// Whether a result of this worker on all prompts was taken.
    pub fn knows(&self, worker: &WorkerId) -> bool {
        self.means.contains_key(worker)
    }

    /// Whether results of this worker were compared with those of enough others, or there are too few workers for that.
    pub fn is_proven(&self, worker: &WorkerId) -> bool {
        self.means.len() <= MIN_OTHERS || self.repeated.compared_with(worker) >= MIN_OTHERS
    }

    /// The worst suspect and the reason. Only the worst, because excluding it may clear the others.
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
