//! Breeds the candidates of one search: pure, steady state, with an ask/tell interface. `README.md` in this folder has
//! the math.
//!
//! **Invariant:** knows nothing of time, threads, storage, workers and leases. [`Breeder::ask`] depends only on the
//! recorded facts and on the index: the same facts in the same order give the same candidates.

mod breeder;
mod calibrated;
mod costs;
mod credit;
mod crossover;
mod dense;
mod error_models;
mod genome;
mod knowledge;
mod latency;
mod ledger;
mod mutation;
mod nsga2;
mod parents;
mod parts;
mod planner_link;
mod planning;
mod population;
mod proposer;
mod provenance;
mod random;
mod region;
mod remeasure;
mod repeats;
mod resample;
mod results;
mod rungs;
mod seeds;
#[cfg(test)]
mod testing;
mod variation;

pub use breeder::{Breeder, BreederError};
pub use credit::OperatorShare;
pub use error_models::Planner;
pub use knowledge::REPORTED_QUALITY_RATIO;
pub use ledger::TellError;
pub use parts::Parts;
pub use planner_link::{Plan, PlannerInput};
pub use provenance::{Proposal, Provenance};
pub use remeasure::Witness;
pub use seeds::ImportedNames;
