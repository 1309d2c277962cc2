//! For operators, over HTTP: `/healthz` (is it alive), `/readyz` (does it take calls), `/metrics` (for Prometheus).
//!
//! Read only, without secrets, and off unless it is asked for. What people and workers need is gRPC's.

mod endpoint;
mod exposition;
mod metrics;
mod parts;

pub use endpoint::Http;
pub use parts::{Guard, Parts};
