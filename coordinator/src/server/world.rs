//! The engine's ports to the world: the clock and the source of identifiers.

use crate::ports::{Clock, IdSource};
use evocache_domain::time::Timestamp;

/// Wall-clock time at the start, monotonic from then on: setting the clock of the machine expires no lease.
pub(super) struct SystemClock {
    start: Timestamp,
    since: std::time::Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(super) fn new() -> Self {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { start: Timestamp(0).plus(wall), since: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.since.elapsed())
    }
}

/// Identifiers that are unique across processes and machines.
pub(super) struct Uuids;

impl IdSource for Uuids {
    #[expect(clippy::disallowed_methods, reason = "this is the source of identifiers")]
    fn unique(&self) -> String {
        uuid::Uuid::now_v7().to_string()
    }
}
