//! How the programs of evocache speak: one implementation for the coordinator, its client and the workers.
//!
//! - [`channel`]: addresses, keep-alive and message sizes of gRPC connections;
//! - [`credentials`]: certificates and the bearer token that a caller presents;
//! - [`back_off`]: waits between attempts, with jitter;
//! - [`log`]: the log on stderr, as text or JSON;
//! - [`telemetry`]: traces across processes.
//!
//! **Invariant:** knows no message of the contract, no search and no model.

pub mod back_off;
pub mod channel;
pub mod credentials;
pub mod log;
pub mod telemetry;
