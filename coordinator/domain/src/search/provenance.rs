//! A candidate before it is evaluated: its schedule, where it comes from, and the prompts to evaluate it on.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Maker, Origin, PromptSet, Schedule};

/// How a candidate came to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The candidates that it was bred from; empty for seeds, planned and random schedules. A repeat or a promotion has one,
    /// whose schedule it has.
    pub parents: Vec<CandidateId>,
    /// What made it.
    pub origin: Origin,
    /// Where its line began: the seed's family, such as `fora`, inherited from the first parent.
    pub seed_family: String,
}

impl Provenance {
    /// A schedule without parents.
    pub fn founder(maker: Maker, family: &str) -> Self {
        Self { parents: Vec::new(), origin: Origin::New(maker), seed_family: family.to_owned() }
    }

    /// The candidate whose schedule this measures again.
    pub fn repeats(&self) -> Option<CandidateId> {
        self.parents.first().copied().filter(|_| self.origin == Origin::Repeat)
    }

    /// The candidate whose schedule this measures on more prompts.
    pub fn promotes(&self) -> Option<CandidateId> {
        self.parents.first().copied().filter(|_| matches!(self.origin, Origin::Promotion(_)))
    }
}

/// A candidate that has not been evaluated yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The schedule to run.
    pub schedule: Arc<Schedule>,
    /// How it came to be.
    pub provenance: Arc<Provenance>,
    /// The prompts to evaluate it on.
    pub prompts: PromptSet,
}
