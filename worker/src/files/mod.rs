//! Reads a model's files: JSON configs and weights, and computes a digest of them.
//!
//! **Invariant:** knows file formats, but nothing of models.

pub mod config;
pub mod error;
pub mod fields;
pub mod fingerprint;
pub mod hub;
pub mod text;
pub mod weights;

pub use error::ModelError;
