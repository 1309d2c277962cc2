//! Models, read from folders in the diffusers and transformers layout.
//!
//! **Invariant:** knows nothing of schedules, caches or the executor, which use a transformer only through
//! [`block_model`].

pub mod blip;
pub mod block_model;
mod caption;
mod characters;
pub mod clip;
mod clip_layers;
pub mod clip_text;
pub mod diffusers;
pub mod dit;
mod embeddings;
mod feed_forward;
pub mod flux;
#[cfg(feature = "fid")]
pub mod inception;
mod joint_attention;
mod modulation;
mod patches;
mod pipelines;
pub mod pixart;
mod pixart_embeddings;
pub mod prompts;
pub mod sd3;
mod spiece;
pub mod t5;
pub mod tokenizer;
mod tokenizer_files;
pub mod true_widths;
pub mod vae;
mod vae_blocks;
mod vae_tiles;
