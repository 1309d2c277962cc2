//! Reads the files of a model: JSON configs, safetensors weights, a digest of both. Knows formats, but no model.

pub mod config;
pub mod error;
pub mod fields;
pub mod fingerprint;
pub mod hub;
pub mod text;
pub mod weights;

pub use error::ModelError;
