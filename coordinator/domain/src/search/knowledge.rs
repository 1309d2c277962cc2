//! What the results add up to: what was observed of each schedule, its score, and the sets that scores live in.
//!
//! A score is not final. Another measurement of a schedule, or a better idea of how noisy latencies are
//! ([`Latencies`]), changes what is believed of it; so everything is scored anew now and then: after every twelfth
//! part of the results (from 2,000 on every fourth), and when the search ends. Only results on all prompts are held here. Absent: schedules beyond
//! what latencies need, and how candidates are bred.

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

/// The share of the uncached quality at which the best speed-up is reported while a search runs.
pub const REPORTED_QUALITY_RATIO: f64 = 0.98;
/// A hypervolume that grew by less, relatively, has not grown.
const GROWTH: f64 = 1e-3;
/// What a newcomer to the front is credited with where the hypervolume has more than two dimensions.
const JOINING: f64 = 1e-3;
/// Everything is scored anew after this part of the results; from so many on, when noise and line are well known, after
/// that one.
const RESCORED: usize = 12;
const MANY: (usize, usize) = (2000, 4);

#[derive(Debug, Clone, PartialEq)]
struct Evidence {
    /// Mean of what was observed, and of how many evaluations.
    observed: Observed,
    count: u32,
    score: Score,
    seed: bool,
    /// The first candidate with this schedule, by which latencies know it.
    first: CandidateId,
}

/// The largest speed-ups at [`REPORTED_QUALITY_RATIO`] or more: of all, and of the seeds alone.
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
    /// The uncached latency that those in time rest on; without one, each result's own.
    reference: Option<f64>,
    evidence: BTreeMap<CandidateId, Evidence>,
    population: Population,
    archive: Archive,
    seed_archive: Archive,
    /// The archive's staircase, while there are two objectives: what a result adds is its credit.
    stairs: Option<Staircase>,
    speedups: Speedups,
    /// Measurements taken in, and how many of them everything was last scored by.
    told: usize,
    scored: usize,
    /// The hypervolume when it last grew, and results since; only counted where a budget asks for it.
    growth: Option<(f64, u64)>,
}

/// What a new result did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Added {
    pub(super) score: Score,
    pub(super) inserted: Inserted,
    /// Hypervolume that it added.
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

    /// Results in a row in which the hypervolume did not grow.
    pub(super) fn stagnant(&self) -> u64 {
        self.growth.map_or(0, |(_, since)| since)
    }

    /// How many evaluations a schedule's evidence rests on; 0 for one that has none on all prompts.
    pub(super) fn count(&self, candidate: CandidateId) -> u32 {
        self.evidence.get(&candidate).map_or(0, |e| e.count)
    }

    pub(super) fn score(&self, candidate: CandidateId) -> Option<Score> {
        self.evidence.get(&candidate).map(|e| e.score)
    }

    /// All scores, by candidate.
    pub(super) fn scores(&self) -> impl Iterator<Item = (CandidateId, Score)> {
        self.evidence.iter().map(|(&candidate, evidence)| (candidate, evidence.score))
    }

    /// Candidates with results on all prompts.
    pub(super) fn candidates(&self) -> impl Iterator<Item = CandidateId> {
        self.evidence.keys().copied()
    }

    /// The same, each with what is believed of its latency ratio.
    pub(super) fn latency_ratios(&self) -> impl Iterator<Item = (CandidateId, f64)> {
        self.evidence.iter().filter_map(|(&candidate, e)| Some((candidate, self.latencies.value(e.first)?)))
    }

    pub(super) fn estimate(&self, candidate: CandidateId) -> Option<Estimate> {
        self.latencies.estimate(self.evidence.get(&candidate).map_or(candidate, |e| e.first))
    }

    /// Takes in a measured latency; `first` is the first candidate with this schedule.
    pub(super) fn add_latency(&mut self, space: &Space, first: CandidateId, schedule: &Schedule, timing: Timing<'_>) {
        self.latencies.tell(space, first, schedule, timing);
        self.told += 1;
    }

    /// What latencies in time rest on.
    pub(super) fn set_uncached_latency(&mut self, uncached_us: Option<f64>) {
        self.reference = uncached_us;
    }

    /// What was observed, with the estimated latency in place of the measured one.
    pub(super) fn with_estimated_latency(&self, first: CandidateId, observed: &Observed) -> Observed {
        match self.latencies.value(first) {
            Some(ratio) => self.objectives.with_latency_ratio(observed, ratio, self.reference),
            None => *observed,
        }
    }

    /// The first result of a schedule on all prompts.
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

    /// Another result of a schedule that has one.
    pub(super) fn add_repeat(&mut self, candidate: CandidateId, observed: &Observed) {
        if let Some(evidence) = self.evidence.get_mut(&candidate) {
            evidence.observed = evidence.observed.averaged_with(evidence.count, observed);
            evidence.count += 1;
        }
    }

    /// The believed speed-up of a candidate with enough quality and within all bounds.
    fn speedup(&self, candidate: CandidateId) -> Option<f64> {
        let evidence = self.evidence.get(&candidate)?;
        let kept = self.objectives.quality_ratio(&evidence.observed)?;
        let enough = kept >= REPORTED_QUALITY_RATIO && evidence.score.is_feasible();
        enough.then_some(1.0 / self.latencies.value(evidence.first)?)
    }

    /// Whether so much was told that scores should be looked at again.
    pub(super) fn is_due(&self) -> bool {
        let part = if self.told < MANY.0 { RESCORED } else { MANY.1 };
        self.told > self.scored + self.told / part
    }

    /// Scores everything anew. Says whether there was a reason to.
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
