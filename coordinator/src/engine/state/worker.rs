//! A worker in memory, and how it is doing.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::Declaration;

use crate::ports::Registration;
use evocache_domain::time::Timestamp;

/// A registered worker.
#[derive(Debug, Clone)]
pub struct Worker {
    /// What the worker declared, when, and with which token.
    pub registration: Registration,
    /// Equal for all workers that can serve the same searches.
    pub class: Arc<str>,
    /// Whether the worker is to leave; it gets no more work.
    pub draining: bool,
    /// Why the worker is in quarantine, if it is; it gets no more work.
    pub quarantine: Option<String>,
    /// When the worker last called. After a restart: its registration, its last grant or its last result.
    pub seen: Timestamp,
    /// Number of candidates that it holds.
    pub leases: usize,
    /// Number of evaluations accepted from it, in searches that still exist.
    pub completed: u64,
    /// Number of failures that it reported since the coordinator started. Not stored.
    pub failed: u64,
}

/// How a worker is doing: the first variant that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Others could not reproduce its measurements.
    Quarantined,
    /// Silent for too long and without a lease: it died or left without deregistering.
    Gone,
    /// Silent for too long; its leases are about to expire.
    Silent,
    /// Gets no more work.
    Draining,
    /// Called recently.
    Alive,
}

impl Worker {
    pub(super) fn new(registration: Registration) -> Self {
        Self {
            class: class(&registration.declaration),
            draining: false,
            quarantine: None,
            seen: registration.at,
            registration,
            leases: 0,
            completed: 0,
            failed: 0,
        }
    }

    /// Whether the worker has not called for longer than `silence`.
    pub fn is_silent(&self, now: Timestamp, silence: Duration) -> bool {
        now.since(self.seen) > silence
    }

    /// How the worker is doing, if one that has not called for longer than `silence` counts as silent.
    pub fn standing(&self, now: Timestamp, silence: Duration) -> Standing {
        if self.quarantine.is_some() {
            Standing::Quarantined
        } else if self.is_silent(now, silence) {
            if self.leases == 0 { Standing::Gone } else { Standing::Silent }
        } else if self.draining {
            Standing::Draining
        } else {
            Standing::Alive
        }
    }
}

/// All that decides which searches a worker can serve.
fn class(d: &Declaration) -> Arc<str> {
    let metrics: Vec<_> = d.metrics.iter().map(|m| (&m.name, m.direction)).collect();
    let place = (&d.device, d.memory_bytes, &d.labels);
    format!(
        "{:?}",
        (
            &d.model,
            &d.fingerprint,
            d.layout.to_string(),
            (d.forecast, d.guidance_decisions, d.profiles, d.grids),
            metrics,
            place
        )
    )
    .into()
}
