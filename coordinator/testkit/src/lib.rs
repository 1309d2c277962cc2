//! Helpers shared by the coordinator's tests and benchmarks.
//!
//! - [`certificates`]: authorities and certificates for TLS;
//! - [`landscape`]: schedules with a known cost and error, so that a search runs without a diffusion model.
//!
//! The domain's unit tests use this crate too, so its API uses types of `evocache_proto` and not of the domain.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod certificates;
pub mod landscape;
