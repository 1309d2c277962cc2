//! Models, read from folders in the diffusers and transformers layout.
//!
//! **Invariant:** nothing here knows schedules, caches or the executor. A transformer answers what [`block_model`]
//! asks and nothing else.

pub mod block_model;
pub mod clip;
pub mod diffusers;
pub mod pixart;
mod pixart_embeddings;
pub mod t5;
pub mod tokenizer;
pub mod vae;
mod vae_blocks;
