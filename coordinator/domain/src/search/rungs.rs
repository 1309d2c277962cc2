//! Rungs: candidates evaluated on some of the prompts, and which of them are promoted to more.
//!
//! Asynchronous successive halving with several objectives. The score of a partial result is estimated prompt by
//! prompt: the mean difference to the uncached run on the same prompts, added to the uncached run's mean over all
//! prompts. Its standard error is that of a mean of prompts drawn without replacement. A candidate can reach the front
//! if no member dominates its score improved by one standard error. Of those, the one with the largest expected
//! hypervolume is promoted, at most a third of a rung. Only results on all prompts join the front. Knows nothing of
//! schedules.

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::{CandidateId, Direction, Measurement, MetricValues, Paired, PromptSet};

use crate::archive::Archive;
use crate::hypervolume::Staircase;
use crate::objective::{Objectives, Observed};

/// At most one of this many candidates of a rung is promoted.
const PROMOTED: usize = 3;

/// A result on some of the prompts.
#[derive(Debug, Clone, PartialEq)]
struct Partial {
    candidate: CandidateId,
    /// The estimated result on all prompts, improved by one standard error.
    hopeful: Observed,
}

/// The partial results of one search.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rungs {
    /// Number of prompts of each rung, ascending; the last is all prompts.
    sizes: Vec<u32>,
    /// By rung below the last: results that may still be promoted, and the number of all results.
    open: Vec<Vec<Partial>>,
    finished: Vec<usize>,
    /// Promoted candidates, each with the rung that it was promoted from.
    promoted: BTreeMap<CandidateId, usize>,
    /// The uncached run's values, prompt by prompt.
    baseline: Vec<MetricValues>,
}

impl Rungs {
    pub(super) fn new(parts: &[u32], all: usize) -> Self {
        let mut sizes = parts.to_vec();
        sizes.push(u32::try_from(all).unwrap_or(u32::MAX));
        Self { open: vec![Vec::new(); parts.len()], finished: vec![0; parts.len()], sizes, ..Self::default() }
    }

    /// The prompts of a new candidate.
    pub(super) fn first(&self) -> PromptSet {
        self.prompts(0)
    }

    /// The prompts of a rung.
    fn prompts(&self, rung: usize) -> PromptSet {
        if rung < self.open.len() { PromptSet::from_number(self.sizes[rung]) } else { PromptSet::All }
    }

    /// The rung below the last with these prompts.
    fn rung(&self, prompts: PromptSet) -> Option<usize> {
        (0..self.open.len()).find(|&rung| self.prompts(rung) == prompts)
    }

    /// Whether a result on these prompts is partial.
    pub(super) fn is_partial(&self, prompts: PromptSet) -> bool {
        self.rung(prompts).is_some()
    }

    /// Sets the uncached run's measurement on all prompts.
    pub(super) fn set_baseline(&mut self, measurement: &Measurement) {
        if !self.open.is_empty() {
            self.baseline.clone_from(&measurement.metrics);
        }
    }

    /// Takes a partial result and returns its estimate on all prompts; `None` if the result is on all prompts.
    pub(super) fn tell(
        &mut self,
        candidate: CandidateId,
        prompts: PromptSet,
        objectives: &Objectives,
        observed: &Observed,
        measurement: &Measurement,
    ) -> Option<Observed> {
        let rung = self.rung(prompts)?;
        let (mut likely, mut hopeful) = (*observed, *observed);
        for (metric, direction) in objectives.qualities() {
            let Some((mean, error, baseline)) = self.paired(measurement, metric) else { continue };
            let better = match direction {
                Direction::Maximize => error,
                Direction::Minimize => -error,
            };
            likely = objectives.with_quality(&likely, metric, mean, baseline);
            hopeful = objectives.with_quality(&hopeful, metric, mean + better, baseline);
        }
        self.finished[rung] += 1;
        self.open[rung].push(Partial { candidate, hopeful });
        Some(likely)
    }

    /// The estimated mean over all prompts, its standard error, and the uncached run's mean.
    fn paired(&self, measurement: &Measurement, metric: &str) -> Option<(f64, f64, f64)> {
        let uncached = self.baseline.iter().find(|m| m.name == metric)?;
        let values = &measurement.metric(metric)?.values;
        let paired = Paired::of(values.iter().zip(&uncached.values).map(|(a, b)| a - b))?;
        Some((uncached.mean() + paired.mean, paired.error_of_part(uncached.values.len()), uncached.mean()))
    }

    /// Marks a candidate as promoted to more prompts.
    pub(super) fn promote(&mut self, candidate: CandidateId, prompts: PromptSet) {
        let to = self.rung(prompts).unwrap_or(self.open.len());
        self.promoted.insert(candidate, to.saturating_sub(1));
    }

    /// Drops promoted candidates and those that can no longer reach the front.
    pub(super) fn prune(&mut self, reaches: impl Fn(&Observed) -> bool) {
        let promoted: BTreeSet<CandidateId> = self.promoted.keys().copied().collect();
        for open in &mut self.open {
            open.retain(|partial| !promoted.contains(&partial.candidate) && reaches(&partial.hopeful));
        }
    }

    /// The next candidate to promote and its prompts; the highest rung first.
    pub(super) fn next(
        &self,
        objectives: &Objectives,
        front: &Archive,
        stairs: Option<&Staircase>,
    ) -> Option<(CandidateId, PromptSet)> {
        (0..self.open.len()).rev().find_map(|rung| {
            let already = self.promoted.values().filter(|&&from| from == rung).count();
            if already * PROMOTED >= self.finished[rung] {
                return None;
            }
            let able = self.open[rung].iter().filter(|p| !self.promoted.contains_key(&p.candidate));
            let hopes = able.filter_map(|partial| {
                let score = objectives.judge(&partial.hopeful);
                let gain = stairs.map_or(0.0, |s| s.gain(score.losses[0], score.losses[1]));
                (!front.covers(&score)).then_some((gain, partial.candidate))
            });
            let best = hopes.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
            Some((best.1, self.prompts(rung + 1)))
        })
    }
}

#[cfg(test)]
#[path = "rungs_tests.rs"]
mod tests;
