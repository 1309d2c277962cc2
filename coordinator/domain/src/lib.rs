//! The coordinator's pure domain: what to evaluate next, who holds it, what the results mean.
//!
//! Absent on purpose: tokio, tonic, sled, protobuf, JSON, clocks, threads and ambient randomness. Time comes in as a
//! [`time::Timestamp`], randomness from [`rng::Stream`]s keyed by the search's seed. Equal facts told in equal order
//! give equal state, so a replay of the store is the same search.
//!
//! - [`objective`], [`pareto`], [`hypervolume`], [`archive`]: what "better" means, and the front;
//! - [`estimate`]: numbers with their uncertainty;
//! - [`search`]: breeds candidates;
//! - [`lease`]: the state machine of one candidate's evaluation;
//! - [`evaluation`], [`mod@reference`], [`query`]: results, the uncached latency, and the best schedule for conditions;
//! - [`trust`]: workers whose results others cannot repeat.

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
