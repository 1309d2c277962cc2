//! Workers.

use std::time::SystemTime;

use evocache_proto::domain::{CandidateId, WorkerId};

use crate::client::foreign::Foreign;

/// Whether a worker is available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It called recently.
    Alive,
    /// It has been silent for long and holds a lease that will expire.
    Silent,
    /// It has been silent for long and holds no lease: it has exited or cannot reach the coordinator.
    Gone,
    /// It finishes its leases and gets no more.
    Draining,
    /// Other workers cannot reproduce its results: it gets no more work, and its results are excluded.
    Quarantined,
}

impl WorkerState {
    /// The name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Silent => "silent",
            Self::Gone => "gone",
            Self::Draining => "draining",
            Self::Quarantined => "quarantined",
        }
    }
}

/// A lease of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseNote {
    /// The search.
    pub search_id: Foreign,
    /// The candidate's number.
    pub candidate: CandidateId,
}

/// A worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// The id.
    pub id: WorkerId,
    /// The name for people.
    pub name: Foreign,
    /// The device.
    pub device: Foreign,
    /// The software and its version.
    pub software: Foreign,
    /// The loaded model.
    pub model: Foreign,
    /// The fingerprint of the model.
    pub fingerprint: Foreign,
    /// Whether it is available.
    pub state: WorkerState,
    /// The time of registration.
    pub register_time: Option<SystemTime>,
    /// The time of its last call.
    pub last_seen_time: Option<SystemTime>,
    /// The leases that it holds.
    pub leases: Vec<LeaseNote>,
    /// Evaluations that it completed.
    pub completed: u64,
    /// Evaluations that failed.
    pub failed: u64,
    /// Why it is in quarantine; empty if it is not.
    pub quarantine: Foreign,
    /// Why it is idle; empty if it has work or gets none.
    pub idle_reason: Foreign,
    /// The metrics that it declares; empty from a coordinator that does not send them.
    pub metrics: Vec<Foreign>,
}
