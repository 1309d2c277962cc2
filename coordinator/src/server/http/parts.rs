//! What the endpoint reads.

use std::time::Duration;

use crate::engine::Handle;
use crate::server::connections::Connections;
use crate::server::gate::{Calls, Gate, Limiter};
use crate::server::reload::Reloader;

/// The parts of a coordinator that have something to show.
pub struct Parts {
    /// The engine.
    pub engine: Handle,
    /// The counted calls.
    pub calls: Calls,
    /// A worker that is silent for longer than this is shown as silent or gone.
    pub silence: Duration,
    /// What admits calls; `None` for services without a server around them.
    pub guard: Option<Guard>,
}

/// The parts that admit calls.
pub struct Guard {
    /// The files of certificates and tokens.
    pub reloader: Reloader,
    /// The rate limits.
    pub limiter: Limiter,
    /// The bytes held for callers.
    pub gate: Gate,
    /// The connections.
    pub connections: Connections,
}
