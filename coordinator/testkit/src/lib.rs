//! Helpers shared by the coordinator's tests and benchmarks.
//!
//! - [`certificates`]: authorities and certificates for TLS;
//! - `digest` (feature `engine`): all of a coordinator's state that a restart keeps, as text;
//! - [`landscape`]: schedules with a known cost and error, so that a search runs without a diffusion model;
//! - [`toy`]: a search that is over in milliseconds, for tests of what is around the search.
//!
//! The domain's unit tests use this crate too, so its API uses types of `evocache_proto` and not of the domain. Only
//! `digest` knows the engine.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod certificates;
#[cfg(feature = "engine")]
pub mod digest;
pub mod landscape;
pub mod toy;
