//! Breeds the candidates of one search: ask/tell, steady state, pure. See `README.md` beside this file for the maths.
//!
//! Absent: time, threads, storage, workers and leases. [`Breeder::ask`] depends on nothing but the facts recorded so
//! far and the index asked for; equal facts in equal order give equal candidates.

mod breeder;
mod crossover;
mod genome;
#[cfg(test)]
pub(crate) mod landscape;
mod mutation;
mod population;
mod random;
mod region;
mod resample;
mod seeds;
mod variation;

pub use breeder::{Breeder, BreederError, TellError};

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Schedule};

/// How a candidate came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The candidates it was bred from; empty for seeds and random schedules.
    pub parents: Vec<CandidateId>,
    /// What made it: `seed`, `random`, or the operators joined by `+`, such as `rectangle+shift`.
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
    pub provenance: Provenance,
}
