//! One finished evaluation: which schedule, where it came from, what was measured, by whom and when.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Measurement, Schedule, WorkerId};

use super::search::Provenance;
use super::time::Timestamp;

/// A candidate with its measurement. Never changes once stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Which candidate of the search.
    pub candidate: CandidateId,
    /// What was run.
    pub schedule: Arc<Schedule>,
    /// How the schedule came to be.
    pub provenance: Arc<Provenance>,
    /// What was measured.
    pub measurement: Measurement,
    /// The registration that measured it.
    pub worker: WorkerId,
    /// That worker's name, for people; the registration may be gone.
    pub worker_name: String,
    /// The device it was measured on.
    pub device: String,
    /// When the lease that led to the result was granted.
    pub started: Timestamp,
    /// When the result arrived.
    pub finished: Timestamp,
    /// Which attempt it was, from 1.
    pub attempt: u32,
}
