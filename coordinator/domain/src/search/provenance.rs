//! A candidate before its evaluation: its schedule, its origin, and the prompts to evaluate it on.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Maker, Origin, PromptSet, Schedule};

/// How a candidate was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The candidates that it was bred from; empty for seeds, planned and random schedules. A repeat or a promotion has
    /// one parent, with the same schedule.
    pub parents: Vec<CandidateId>,
    /// The operator, model or reason that produced it.
    pub origin: Origin,
    /// The family of the seed that its line of first parents starts from, such as `fora`.
    pub seed_family: String,
}

impl Provenance {
    /// A schedule without parents.
    pub fn founder(maker: Maker, family: &str) -> Self {
        Self { parents: Vec::new(), origin: Origin::New(maker), seed_family: family.to_owned() }
    }

    /// The candidate that this one repeats.
    pub fn repeats(&self) -> Option<CandidateId> {
        self.parents.first().copied().filter(|_| self.origin == Origin::Repeat)
    }

    /// The candidate that this one promotes to more prompts.
    pub fn promotes(&self) -> Option<CandidateId> {
        self.parents.first().copied().filter(|_| matches!(self.origin, Origin::Promotion(_)))
    }
}

/// A proposed candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The schedule to run.
    pub schedule: Arc<Schedule>,
    /// How it was made.
    pub provenance: Arc<Provenance>,
    /// The prompts to evaluate it on.
    pub prompts: PromptSet,
}
