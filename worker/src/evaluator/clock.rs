//! The only place where the worker's numeric core reads a clock.

use std::time::{Duration, Instant};

/// Measures the time since [`start`](Self::start).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "latency is what this crate measures")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
