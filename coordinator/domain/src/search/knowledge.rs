//! The results of a search on all prompts: the observations and score of each schedule, the front and the population.
//!
//! A score is not final. Repeats, and a better latency model ([`Latencies`]), change the estimate behind it. So all
//! results are rescored from time to time: whenever they have grown by 1/12 (from 2,000 results on by 1/4), and when
//! the search ends. Knows nothing of how candidates are bred.

use std::collections::BTreeMap;

use evocache_proto::domain::{CandidateId, Schedule, SearchSpec};

use super::genome::Space;
use super::latency::{Latencies, Timing};
use super::population::Population;
use crate::archive::{Archive, Inserted, Member};
use crate::estimate::Estimate;
use crate::hypervolume::Staircase;
use crate::objective::{Objectives, Observed};
use crate::pareto::Score;

/// The quality ratio at which the best speed-up is reported while a search runs.
pub const REPORTED_QUALITY_RATIO: f64 = 0.98;
/// The hypervolume has grown if its relative growth exceeds this.
const GROWTH: f64 = 1e-3;
/// The gain credited to a new front member if there are more than two objectives.
const JOINING: f64 = 1e-3;
/// All results are rescored when they have grown by one part in this many.
const RESCORED: usize = 12;
/// From this many results on, when the latency model is well known, by one part in that many.
const MANY: (usize, usize) = (2000, 4);

#[derive(Debug, Clone, PartialEq)]
struct Evidence {
    /// Mean of the observations, and their number.
    observed: Observed,
    count: u32,
    score: Score,
    seed: bool,
    /// The first candidate with this schedule: its key in the latency model.
    first: CandidateId,
}

/// The largest estimated speed-ups at [`REPORTED_QUALITY_RATIO`] or more: of all schedules, and of the seeds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Speedups {
    pub(super) all: Option<f64>,
    pub(super) seeds: Option<f64>,
}

/// The results of one search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Knowledge {
    objectives: Objectives,
    latencies: Latencies,
    /// The uncached latency for `latency_us`, in microseconds per image; if `None`, each result's own is used.
    reference: Option<f64>,
    evidence: BTreeMap<CandidateId, Evidence>,
    population: Population,
    archive: Archive,
    seed_archive: Archive,
    /// The archive's staircase, if there are two objectives. The area that a result adds is its gain.
    stairs: Option<Staircase>,
    speedups: Speedups,
    /// Number of measurements, and that number at the last rescoring.
    told: usize,
    scored: usize,
    /// The hypervolume when it last grew, and the number of results since; only if the budget limits stagnation.
    growth: Option<(f64, u64)>,
}

/// The effect of a new result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Added {
    pub(super) score: Score,
    pub(super) inserted: Inserted,
    /// The hypervolume that it added.
    pub(super) gain: f64,
}

impl Knowledge {
    pub(super) fn new(spec: &SearchSpec, space: &Space) -> Self {
        Self {
            objectives: Objectives::new(spec),
            latencies: Latencies::new(space),
            reference: None,
            evidence: BTreeMap::new(),
            population: Population::new(spec.algorithm.population as usize),
            archive: Archive::new(),
            seed_archive: Archive::new(),
            stairs: (spec.objectives.len() == 2).then(|| Staircase::new((1.0, 1.0))),
            speedups: Speedups::default(),
            told: 0,
            scored: 0,
            growth: spec.budget.stagnation.map(|_| (0.0, 0)),
        }
    }

    pub(super) fn objectives(&self) -> &Objectives {
        &self.objectives
    }

    pub(super) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    pub(super) fn population(&self) -> &Population {
        &self.population
    }

    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    pub(super) fn seed_archive(&self) -> &Archive {
        &self.seed_archive
    }

    pub(super) fn stairs(&self) -> Option<&Staircase> {
        self.stairs.as_ref()
    }

    pub(super) fn speedups(&self) -> Speedups {
        self.speedups
    }

    /// Number of consecutive results without growth of the hypervolume.
    pub(super) fn stagnant(&self) -> u64 {
        self.growth.map_or(0, |(_, since)| since)
    }

    /// Number of evaluations of a candidate's schedule on all prompts.
    pub(super) fn count(&self, candidate: CandidateId) -> u32 {
        self.evidence.get(&candidate).map_or(0, |e| e.count)
    }

    pub(super) fn score(&self, candidate: CandidateId) -> Option<Score> {
        self.evidence.get(&candidate).map(|e| e.score)
    }

    /// All scores, sorted by candidate.
    pub(super) fn scores(&self) -> impl Iterator<Item = (CandidateId, Score)> {
        self.evidence.iter().map(|(&candidate, evidence)| (candidate, evidence.score))
    }

    /// Candidates with results on all prompts.
    pub(super) fn candidates(&self) -> impl Iterator<Item = CandidateId> {
        self.evidence.keys().copied()
    }

    /// The same, each with its estimated latency ratio.
    pub(super) fn latency_ratios(&self) -> impl Iterator<Item = (CandidateId, f64)> {
        self.evidence.iter().filter_map(|(&candidate, e)| Some((candidate, self.latencies.value(e.first)?)))
    }

    pub(super) fn estimate(&self, candidate: CandidateId) -> Option<Estimate> {
        self.latencies.estimate(self.evidence.get(&candidate).map_or(candidate, |e| e.first))
    }

    /// Takes a measured latency; `first` is the first candidate with this schedule.
    pub(super) fn add_latency(&mut self, space: &Space, first: CandidateId, schedule: &Schedule, timing: Timing<'_>) {
        self.latencies.tell(space, first, schedule, timing);
        self.told += 1;
    }

    /// Sets the uncached latency for `latency_us`, in microseconds per image.
    pub(super) fn set_uncached_latency(&mut self, uncached_us: Option<f64>) {
        self.reference = uncached_us;
    }

    /// Replaces the measured latency of an observation by the estimate.
    pub(super) fn with_estimated_latency(&self, first: CandidateId, observed: &Observed) -> Observed {
        match self.latencies.value(first) {
            Some(ratio) => self.objectives.with_latency_ratio(observed, ratio, self.reference),
            None => *observed,
        }
    }

    /// Adds the first result of a schedule on all prompts.
    pub(super) fn add(&mut self, candidate: CandidateId, first: CandidateId, observed: Observed, seed: bool) -> Added {
        let score = self.objectives.judge(&self.with_estimated_latency(first, &observed));
        self.evidence.insert(candidate, Evidence { observed, count: 1, score, seed, first });
        self.population.insert(Member { candidate, score });
        if seed {
            self.seed_archive.insert(candidate, score);
        }
        let inserted = self.archive.insert(candidate, score);
        let gain = match (&mut self.stairs, inserted) {
            (Some(stairs), _) if score.is_feasible() => stairs.insert(score.losses[0], score.losses[1]),
            (None, Inserted::Joined(_)) => JOINING,
            _ => 0.0,
        };
        self.speedups = self.speedups.with(self.speedup(candidate), seed);
        if let Some((mark, since)) = self.growth {
            let volume = self.archive.hypervolume();
            self.growth = Some(if volume > mark * (1.0 + GROWTH) { (volume, 0) } else { (mark, since + 1) });
        }
        Added { score, inserted, gain }
    }

    /// Adds a repeat to a schedule's results.
    pub(super) fn add_repeat(&mut self, candidate: CandidateId, observed: &Observed) {
        if let Some(evidence) = self.evidence.get_mut(&candidate) {
            evidence.observed = evidence.observed.averaged_with(evidence.count, observed);
            evidence.count += 1;
        }
    }

    /// The estimated speed-up of a feasible candidate with enough quality.
    fn speedup(&self, candidate: CandidateId) -> Option<f64> {
        let evidence = self.evidence.get(&candidate)?;
        let kept = self.objectives.quality_ratio(&evidence.observed)?;
        let enough = kept >= REPORTED_QUALITY_RATIO && evidence.score.is_feasible();
        enough.then_some(1.0 / self.latencies.value(evidence.first)?)
    }

    /// Whether there are enough new measurements for a rescoring.
    pub(super) fn is_due(&self) -> bool {
        let part = if self.told < MANY.0 { RESCORED } else { MANY.1 };
        self.told > self.scored + self.told / part
    }

    /// Refits the latency model and rescores all results. Returns `false` if there are no new measurements.
    pub(super) fn rescore(&mut self) -> bool {
        if self.told == self.scored {
            return false;
        }
        self.scored = self.told;
        self.latencies.fit();
        let (latencies, objectives, reference) = (&self.latencies, &self.objectives, self.reference);
        for evidence in self.evidence.values_mut() {
            let estimated = |ratio| objectives.with_latency_ratio(&evidence.observed, ratio, reference);
            let observed = latencies.value(evidence.first).map_or(evidence.observed, estimated);
            evidence.score = objectives.judge(&observed);
        }
        let member = |(&candidate, evidence): (&CandidateId, &Evidence)| Member { candidate, score: evidence.score };
        self.archive = Archive::of(self.evidence.iter().map(member).collect());
        self.seed_archive = Archive::of(self.evidence.iter().filter(|(_, e)| e.seed).map(member).collect());
        self.population = self.population.rescored(|candidate| self.score(candidate));
        if self.stairs.is_some() {
            let feasible = self.archive.members().iter().filter(|m| m.score.is_feasible());
            let mut points: Vec<_> = feasible.map(|m| (m.score.losses[0], m.score.losses[1])).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            self.stairs = Some(Staircase::of_sorted(points));
        }
        let each = self.evidence.iter().map(|(&candidate, e)| (self.speedup(candidate), e.seed));
        self.speedups = each.fold(Speedups::default(), |best, (speedup, seed)| best.with(speedup, seed));
        true
    }
}

impl Speedups {
    fn with(self, speedup: Option<f64>, seed: bool) -> Self {
        let better = |best: Option<f64>| match (best, speedup) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        Self { all: better(self.all), seeds: if seed { better(self.seeds) } else { self.seeds } }
    }
}
