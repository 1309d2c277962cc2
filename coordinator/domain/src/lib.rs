//! The coordinator's pure domain: which candidate to evaluate next, which worker holds it, what its result means.
//!
//! **Invariant:** no tokio, tonic, sled, protobuf, JSON, clocks, threads or ambient randomness. Time is an argument
//! ([`time::Timestamp`]); random numbers come from [`rng::Stream`]s keyed by the search's seed. The same facts in the
//! same order give the same state, so replaying the store restores the search.
//!
//! - [`objective`], [`pareto`], [`hypervolume`], [`archive`]: scores, dominance and the front;
//! - [`estimate`]: numbers with their uncertainty;
//! - [`search`]: breeds candidates;
//! - [`lease`]: the state machine of one candidate's evaluation;
//! - [`evaluation`], [`mod@reference`], [`query`]: results, the uncached latency, and the best schedule under
//!   conditions;
//! - [`trust`]: finds workers whose results other workers cannot reproduce.

#[cfg(all(planted_bug, not(debug_assertions)))]
compile_error!("EVOCACHE_PLANT is for tests: unset it, or build with debug assertions");

pub mod archive;
pub mod estimate;
pub mod evaluation;
pub mod hypervolume;
pub mod lease;
pub mod objective;
pub mod pareto;
pub mod query;
pub mod reference;
pub mod rng;
pub mod search;
pub mod time;
pub mod trust;
