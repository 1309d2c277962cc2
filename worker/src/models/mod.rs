//! Models, read from folders in the diffusers and transformers layout.
//!
//! **Invariant:** nothing here knows schedules, caches or the executor. A transformer answers what [`block_model`]
//! asks and nothing else.

pub mod block_model;
pub mod clip;
pub mod config;
pub mod diffusers;
pub mod error;
pub mod fingerprint;
pub mod pixart;
mod pixart_embeddings;
pub mod t5;
pub mod tokenizer;
pub mod vae;
mod vae_blocks;
pub mod weights;

pub use error::ModelError;
