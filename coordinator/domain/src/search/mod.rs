//! Breeds the candidates of one search: ask/tell, steady state, pure. See `README.md` beside this file for the maths.
//!
//! Absent: time, threads, storage, workers and leases. [`Breeder::ask`] depends on nothing but the facts recorded so
//! far and the index asked for; equal facts in equal order give equal candidates.

mod advice;
mod ask;
mod breeder;
mod calibrated;
mod costs;
mod credit;
mod crossover;
mod dense;
mod disown;
mod genome;
mod knowledge;
mod latency;
mod model;
mod mutation;
mod nsga2;
mod parents;
mod population;
mod random;
mod region;
mod remeasure;
mod resample;
mod rungs;
mod seeds;
#[cfg(test)]
mod toy_run;
mod variation;

pub use advice::{Advice, Lesson};
pub use breeder::{Breeder, BreederError, REMEASURE, TellError};
pub use credit::OperatorShare;
pub use knowledge::REPORTED_QUALITY_RATIO;
pub use model::Adviser;
pub use remeasure::Witness;
pub use seeds::ImportedNames;

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Schedule};

/// How a candidate came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The candidates it was bred from; empty for seeds and random schedules.
    pub parents: Vec<CandidateId>,
    /// What made it: `seed`, `random`, the operators joined by `+`, such as `rectangle+shift`, or `model-greedy`,
    /// `model-draw` or `model-second` for a schedule built from what a model predicts. `remeasure` for the
    /// schedule of its only parent measured once more, and `promote:` with what made it for one on more prompts.
    pub operator: String,
    /// Where its line began: the seed's family, such as `fora`, inherited from the first parent.
    pub seed_family: String,
}

/// A candidate that nobody evaluated yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// What to run.
    pub schedule: Arc<Schedule>,
    /// How it came to be.
    pub provenance: Arc<Provenance>,
    /// Evaluate the first so many prompts; 0: all of them.
    pub prompts: u32,
}

/// Which parts of the search take part: all of them, but for an ablation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Operators that know the structure of schedules, chosen by credit; else four-point crossover and bit flips.
    pub operators: bool,
    /// Parents from the archive, by gaps and contribution, and by tournament; else evenly from the population.
    pub selection: bool,
    /// Schedules planned with a model of the error.
    pub model: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self { operators: true, selection: true, model: true }
    }
}
