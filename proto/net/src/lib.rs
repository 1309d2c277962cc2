//! What the coordinator, its client and the workers have in common as processes: how they connect, log, trace, wait and
//! supervise each other.
//!
//! - [`channel`]: addresses, keep-alive and message sizes of gRPC connections;
//! - [`credentials`]: certificates and the bearer token that a caller presents;
//! - [`back_off`]: waits between attempts, with jitter;
//! - [`log`]: the log on stderr, as text or JSON;
//! - [`telemetry`]: traces across processes;
//! - [`children`]: child processes, restarted after crashes and stopped in order;
//! - [`pace`]: a rate and a burst, as people write them;
//! - [`signals`]: SIGINT, SIGTERM and SIGHUP;
//! - `tls`, `tokens` (features of these names): certificates of a server, and who may call it.
//!
//! **Invariant:** knows no message of the contract, no search and no model.

pub mod back_off;
pub mod channel;
pub mod children;
pub mod credentials;
pub mod log;
pub mod pace;
pub mod signals;
pub mod telemetry;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "tokens")]
pub mod tokens;
