//! What every request sees: the model once it is loaded, the desk, the kept pictures, the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evocache_net::tls::Tls;

use super::door::Door;
use super::pictures::Pictures;
use super::run::Scene;
use super::studio::Studio;

/// The server as its handlers see it.
pub(super) struct Site {
    pub(super) studio: Arc<Studio>,
    pub(super) pictures: Pictures,
    pub(super) stopping: AtomicBool,
    pub(super) door: Door,
    /// The certificates; `None`: connections are not encrypted.
    pub(super) tls: Option<Tls>,
    /// Most pictures of one request.
    pub(super) count: u32,
    /// How long a request may take that does not say.
    pub(super) deadline: Duration,
}

/// Why the server draws nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unready {
    /// The model is being loaded.
    Loading,
    /// The server is stopping.
    Stopping,
}

impl Unready {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Loading => "the model is being loaded",
            Self::Stopping => "the server is stopping",
        }
    }
}

impl Site {
    /// The model, if the server draws.
    pub(super) fn scene(&self) -> Result<&Scene, Unready> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(Unready::Stopping);
        }
        self.studio.scene.get().ok_or(Unready::Loading)
    }
}
