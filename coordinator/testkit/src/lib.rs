//! What the tests and benchmarks of the coordinator share.
//!
//! - [`landscape`]: schedules with a known cost and error, so that a search runs without a model.
//!
//! The domain's own unit tests use it too; for them, only what speaks in types of `evocache_proto` fits.

#![expect(clippy::panic, reason = "a test fails by panicking")]

pub mod landscape;
