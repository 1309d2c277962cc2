//! The candidates of a search: schedules, states, and the prompts that they use of the budget. Knows nothing of scores.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evocache_proto::domain::{CandidateId, PromptSet, Schedule, ScheduleId};

use super::provenance::{Proposal, Provenance};
use crate::objective::ScoreError;

/// Why a result is refused. The state does not change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TellError {
    /// The candidate was not recorded.
    #[error("candidate {0} is unknown")]
    Unknown(CandidateId),
    /// The candidate already has a result or has failed.
    #[error("candidate {0} is finished")]
    Finished(CandidateId),
    /// The measurement has no score.
    #[error("candidate {0}: {1}")]
    Score(CandidateId, ScoreError),
}

/// The status of a candidate's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Open,
    Measured,
    Failed,
}

/// A recorded candidate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub(super) schedule: Arc<Schedule>,
    /// The first candidate with this schedule: itself, except for repeats and promotions.
    pub(super) first: CandidateId,
    pub(super) provenance: Arc<Provenance>,
    pub(super) prompts: PromptSet,
    pub(super) status: Status,
}

/// All candidates of a search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ledger {
    candidates: BTreeMap<CandidateId, Candidate>,
    known: HashMap<ScheduleId, CandidateId>,
    /// Number of prompts of the search.
    all: usize,
    /// Number of candidates without a result.
    open: usize,
    /// Number of prompts of all candidates that have not failed, and of those with a result.
    begun: u64,
    told: u64,
}

impl Ledger {
    /// An empty ledger for a search with this many prompts.
    pub(super) fn new(all: usize) -> Self {
        Self { candidates: BTreeMap::new(), known: HashMap::new(), all, open: 0, begun: 0, told: 0 }
    }

    /// Adds a candidate; `false` if it exists already.
    pub(super) fn add(&mut self, index: CandidateId, proposal: &Proposal) -> bool {
        if self.candidates.contains_key(&index) {
            return false;
        }
        let Proposal { schedule, provenance, prompts } = proposal.clone();
        let first = *self.known.entry(schedule.id()).or_insert(index);
        self.begun += self.count(prompts);
        self.open += 1;
        self.candidates.insert(index, Candidate { schedule, first, provenance, prompts, status: Status::Open });
        true
    }

    /// A candidate that has neither a result nor failed.
    pub(super) fn open_candidate(&self, index: CandidateId) -> Result<&Candidate, TellError> {
        let candidate = self.get(index).ok_or(TellError::Unknown(index))?;
        match candidate.status {
            Status::Open => Ok(candidate),
            Status::Measured | Status::Failed => Err(TellError::Finished(index)),
        }
    }

    /// Marks a candidate as measured or failed.
    pub(super) fn finish(&mut self, index: CandidateId, status: Status) -> Result<Candidate, TellError> {
        let mut candidate = self.open_candidate(index)?.clone();
        let prompts = self.count(candidate.prompts);
        self.open -= 1;
        match status {
            Status::Measured => self.told += prompts,
            Status::Failed => self.begun -= prompts,
            Status::Open => self.open += 1,
        }
        candidate.status = status;
        self.candidates.insert(index, candidate.clone());
        Ok(candidate)
    }

    pub(super) fn get(&self, index: CandidateId) -> Option<&Candidate> {
        self.candidates.get(&index)
    }

    /// The first candidate with this schedule.
    pub(super) fn find(&self, schedule: &ScheduleId) -> Option<CandidateId> {
        self.known.get(schedule).copied()
    }

    /// The number of candidates without a result.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// The number of prompts in a set.
    pub(super) fn count(&self, prompts: PromptSet) -> u64 {
        prompts.count(self.all) as u64
    }

    /// Used and reserved budget, in whole evaluations: all candidates that have not failed.
    pub(super) fn evaluations_begun(&self) -> u64 {
        self.begun / self.count(PromptSet::All)
    }

    /// The share of a budget, in evaluations, that results have used.
    pub(super) fn share_of(&self, budget: u64) -> f64 {
        self.told as f64 / (budget as f64 * self.all as f64)
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (CandidateId, &Candidate)> {
        self.candidates.iter().map(|(&index, candidate)| (index, candidate))
    }
}
