//! evocache: searches the caching schedule of a diffusion transformer on a cluster of workers.
//!
//! ```text
//! server (tonic)  →  engine (single writer)  →  domain (pure)
//!                       │ commit before answer
//!                       ▼
//!                    store (sled)          cli → client → gRPC
//! ```
//!
//! - [`evocache_domain`]: the search, objectives and the lease machine; a crate of its own, pure.
//! - [`ports`]: what the engine needs of the world: a store, a clock, identifiers.
//! - [`engine`]: decides on the current state, commits, applies, answers.
//! - [`store`]: the ports' store on sled, and its twin in memory.
//! - [`server`]: the gRPC services behind one gate, health and metrics over HTTP; starts and stops a coordinator.
//! - [`faults`]: named moments at which tests kill the process or fail the store; empty unless it is compiled in.
//! - [`upkeep`]: checks, backs up, restores and compacts a store that no coordinator uses.
//! - [`client`], [`cli`]: the typed client and the verbs of the command line; they know the coordinator by its gRPC API only.
//! - [`simulate`]: a real coordinator with workers that only wait: plans a cluster, measures the coordinator.
//!
//! The program `evocache` is a crate of its own (`coordinator/program`). It adds `evocache local`, whose workers bring candle
//! in; this library compiles without it.

#[cfg(all(faults, not(debug_assertions)))]
compile_error!("EVOCACHE_PLANT is for tests: unset it, or build with debug assertions");

pub mod faults;
pub mod ports;

#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod upkeep;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod client;

#[cfg(all(feature = "server", feature = "cli"))]
pub mod simulate;
