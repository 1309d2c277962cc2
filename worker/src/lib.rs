//! The evocache worker: runs caching schedules on a diffusion transformer and measures latency, quality and memory.
//!
//! - [`agent`]: leases candidates from a coordinator, has them evaluated and reports; knows nothing of candle.
//! - [`evaluator`]: calibrates, generates, measures; the agent uses only [`evaluator::api`].
//! - [`executor`]: the denoising loop, the only code that knows schedules and caches.
//! - [`models`], [`layers`], [`samplers`], [`metrics`]: computations with candle; they know nothing of schedules.
//! - [`files`]: reads configs and weights; knows nothing of models.
//! - [`serve`]: an image server on one model, with a schedule.
//! - [`cli`]: the subcommands of the binary; [`allocator`]: its allocator.
//!
//! Without the feature `candle`, the crate contains only the agent, for evaluators in other crates.

pub mod agent;
pub mod cancel;
pub mod evaluator;

#[cfg(feature = "candle")]
pub mod allocator;
#[cfg(feature = "candle")]
pub mod cli;
#[cfg(feature = "candle")]
pub mod executor;
#[cfg(feature = "candle")]
pub mod files;
#[cfg(feature = "candle")]
pub mod layers;
#[cfg(feature = "candle")]
pub mod metrics;
#[cfg(feature = "candle")]
pub mod models;
#[cfg(feature = "candle")]
pub mod picture;
#[cfg(feature = "candle")]
pub mod samplers;
#[cfg(feature = "serve")]
pub mod serve;
