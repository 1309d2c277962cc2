//! evocache: searches the caching schedule of a diffusion transformer on a cluster of workers.
//!
//! ```text
//! api (tonic)  →  engine (single writer)  →  domain (pure)
//!                    │ commit before answer
//!                    ▼
//!                 store (sled)          cli → client → gRPC
//! ```
//!
//! - [`domain`]: the search itself, objectives, the lease machine. Pure.
//! - [`ports`]: what the engine needs of the world: a store, a clock, identifiers.
//! - [`engine`]: decides on the current state, commits, applies, answers.
//! - [`store`]: the ports' store on sled, and its twin in memory.
//! - [`api`]: the gRPC services.
//! - [`serve`]: puts these together into a running coordinator.
//! - [`client`], [`cli`]: the typed client and the command line; they know the coordinator by its gRPC API only.
//! - [`local`]: a coordinator and its workers on this machine in one command.

pub mod domain;
pub mod ports;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod serve;
#[cfg(feature = "server")]
pub mod store;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod client;

#[cfg(feature = "local")]
pub mod local;
