//! The coordinator as a server: gRPC services behind one gate, and health and metrics over HTTP.
//!
//! [`start`] opens a store, starts the engine and serves it. A call passes `gate/`, then a service of `grpc/`.
//!
//! **Invariants:** every call passes one gate; memory for a message is reserved only after its limits were checked; what a
//! caller makes the coordinator hold counts against its principal. Nothing here decides what a search does: that is the
//! engine's and the domain's.

mod activity;
mod connections;
mod error;
mod files;
mod gate;
mod grpc;
mod http;
mod incoming;
pub mod limits;
mod options;
mod reload;
mod start;
mod status;
mod world;

pub use activity::Peer;
pub use connections::{ConnectionCounts, ConnectionLimits, Connections, Watched};
pub use error::{Fatal, ServeError};
pub use evocache_net::tls::{Expiry, Tls, TlsFiles};
pub use gate::{Allowance, Call, Calls, Gate, Gated, Kind, Limiter, Metered, Quotas};
pub use grpc::{Services, Spans, Traced, router, server};
pub use http::{Guard, Http, Parts};
pub use incoming::{Connection, Incoming};
pub use options::{Security, ServeOptions};
pub use reload::{ReloadCounts, Reloader};
pub use start::{DRAIN, Running, start};
