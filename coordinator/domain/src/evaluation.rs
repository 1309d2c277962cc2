//! A finished evaluation: the schedule, its provenance, the measurement, the worker and the times.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Measurement, Schedule, WorkerId};

use super::search::Provenance;
use super::time::Timestamp;

/// A candidate with its measurement. Immutable once stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The candidate's number in its search.
    pub candidate: CandidateId,
    /// The schedule that was run.
    pub schedule: Arc<Schedule>,
    /// How the schedule was made.
    pub provenance: Arc<Provenance>,
    /// Latency, metrics and memory, beside the uncached run's.
    pub measurement: Measurement,
    /// The registration of the worker that measured it.
    pub worker: WorkerId,
    /// That worker's name, for display; the registration may no longer exist.
    pub worker_name: String,
    /// The device of the measurement.
    pub device: String,
    /// When the lease of the result was granted.
    pub started: Timestamp,
    /// When the result arrived.
    pub finished: Timestamp,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}
