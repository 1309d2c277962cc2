//! The evaluator: calibrates, generates, measures. The agent uses [`api`] only; everything else needs candle.

pub mod api;

#[cfg(feature = "candle")]
pub mod binning;
#[cfg(feature = "candle")]
pub(crate) mod clock;
#[cfg(feature = "candle")]
mod cuda;
#[cfg(feature = "candle")]
pub mod device;
#[cfg(feature = "candle")]
mod diffusion;
#[cfg(feature = "candle")]
mod drift;
#[cfg(feature = "candle")]
pub mod energy;
#[cfg(feature = "candle")]
mod evaluation;
#[cfg(feature = "candle")]
pub mod memory;
#[cfg(feature = "candle")]
mod options;
#[cfg(feature = "candle")]
pub mod pipeline;
#[cfg(feature = "candle")]
mod prepared;
#[cfg(feature = "candle")]
pub mod threads;
#[cfg(feature = "candle")]
pub mod timing;

#[cfg(feature = "candle")]
pub use diffusion::DiffusionEvaluator;
#[cfg(feature = "candle")]
pub use options::EvaluatorOptions;
