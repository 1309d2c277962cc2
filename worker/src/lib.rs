//! The evocache worker: runs caching schedules on a diffusion transformer and returns what it measured.
//!
//! - [`agent`]: leases candidates from a coordinator, has them evaluated and reports; never candle.
//! - [`evaluator`]: calibrates, generates, measures; [`evaluator::api`] is all that an agent needs of it.
//! - [`executor`]: the denoising loop, the only code that knows schedules and caches.
//! - [`models`], [`layers`], [`samplers`], [`metrics`]: numbers on candle; they know nothing of schedules.
//! - [`files`]: configs and weights as files; knows no model.
//! - [`cli`]: the verbs of the binary.
//!
//! Without the feature `candle` only the agent's side is built, for evaluators written elsewhere.

pub mod agent;
pub mod cancel;
pub mod evaluator;

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
