//! Evaluations, the front, and the best schedule.

use std::collections::BTreeMap;
use std::time::SystemTime;

use evocache_proto::domain::{CandidateId, Direction, Kept, Maker, Measurement, Objective, Origin, Schedule};

use super::reference::Reference;
use crate::client::foreign::Foreign;

/// The family of the uncached run.
const UNCACHED: &str = "uncached";

/// Where a schedule comes from, in a word: the name of an imported schedule, the family of a heuristic one, or the operators
/// that made it.
pub(in crate::client) fn origin(operator: &str, family: &str, imported: &[Foreign]) -> Foreign {
    let Ok(origin) = operator.parse::<Origin>();
    match imported {
        _ if !origin.is_seed() => origin.maker().map_or_else(|| operator.into(), |maker| maker.to_string().into()),
        _ if family == UNCACHED => UNCACHED.into(),
        [] if family.is_empty() => operator.into(),
        [] => family.into(),
        names => names.iter().map(Foreign::raw).collect::<Vec<_>>().join(", ").into(),
    }
}

/// An estimate of a latency ratio from noisy measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its relative standard deviation.
    pub deviation: f64,
    /// The number of measurements of the schedule itself.
    pub measurements: u32,
}

/// A finished evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The candidate's number; 0 is the uncached run.
    pub candidate: CandidateId,
    /// The evaluated schedule.
    pub schedule: Schedule,
    /// The candidates that it was bred from.
    pub parents: Vec<CandidateId>,
    /// The operators that made it.
    pub operator: Foreign,
    /// The family of the heuristic schedule that it descends from.
    pub seed_family: Foreign,
    /// The names of the imported schedules that are equal to it.
    pub imported: Vec<Foreign>,
    /// The measurement.
    pub measurement: Measurement,
    /// Built-in metrics, and the mean of each declared one, by name.
    pub values: BTreeMap<String, f64>,
    /// The worker that measured it.
    pub worker_id: Foreign,
    /// That worker's name.
    pub worker_name: Foreign,
    /// That worker's device.
    pub device: Foreign,
    /// The time at which the lease was granted.
    pub start_time: Option<SystemTime>,
    /// The time at which the result arrived.
    pub end_time: Option<SystemTime>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// Whether the result is excluded because the worker is in quarantine.
    pub excluded: bool,
    /// The latency ratio estimated from all measurements of the schedule; absent if the coordinator sends none.
    pub estimate: Option<Estimate>,
    /// Microseconds per image by that estimate and the search's reference latency; absent if the coordinator sends none.
    pub estimated_latency_us: Option<f64>,
}

impl Evaluation {
    /// Whether the schedule is a heuristic one and not offspring.
    pub fn is_seed(&self) -> bool {
        let Ok(origin) = self.operator.raw().parse::<Origin>();
        origin == Origin::New(Maker::Seed)
    }

    /// Where the schedule comes from, in a word: the name of an imported schedule, the family of a heuristic one, or the
    /// operators that made it.
    pub fn origin(&self) -> Foreign {
        origin(self.operator.raw(), self.seed_family.raw(), &self.imported)
    }

    /// Latency divided by the uncached latency on the same device: the estimate if there is one, else as measured.
    pub fn latency_ratio(&self) -> f64 {
        self.estimate.map_or_else(|| self.measurement.latency_ratio(), |e| e.value)
    }

    /// Uncached latency divided by this one.
    pub fn speedup(&self) -> f64 {
        1.0 / self.latency_ratio()
    }

    /// Microseconds per image: the latency ratio times the search's uncached latency, or times the uncached latency measured
    /// beside it if the coordinator sends no estimate.
    pub fn latency(&self) -> f64 {
        self.estimated_latency_us.unwrap_or_else(|| self.latency_ratio() * self.measurement.baseline_latency())
    }

    /// The number of measurements of the schedule behind the latency ratio.
    pub fn measurements(&self) -> u32 {
        self.estimate.map_or(1, |e| e.measurements)
    }

    /// The number of prompts.
    pub fn prompts(&self) -> usize {
        self.measurement.metrics.first().map_or(0, |m| m.values.len())
    }

    /// The mean of a metric; for latencies the estimate.
    pub fn value(&self, metric: &str) -> Option<f64> {
        match metric {
            "latency_ratio" => Some(self.latency_ratio()),
            "latency_us" => Some(self.latency()),
            other => self.measurement.value(other, self.schedule.cache_hit_rate()),
        }
    }

    /// Whether the evaluation keeps the objective's bound, if there is one.
    pub fn keeps(&self, objective: &Objective) -> bool {
        let Some((bound, value)) = objective.bound.zip(self.value(&objective.metric)) else { return true };
        match objective.direction {
            Direction::Minimize => value <= bound,
            Direction::Maximize => value >= bound,
        }
    }

    /// The quality kept of the uncached run of the same worker, if the objective is a quality metric.
    pub fn kept(&self, objective: &Objective) -> Option<Kept> {
        Some(self.measurement.metric(&objective.metric)?.kept(objective.direction))
    }
}

/// The front: the non-dominated evaluations.
#[derive(Debug, Clone, PartialEq)]
pub struct Front {
    /// The evaluations, fastest first.
    pub evaluations: Vec<Evaluation>,
    /// The uncached run; absent until it is evaluated.
    pub baseline: Option<Evaluation>,
    /// The hypervolume of the whole front.
    pub hypervolume: f64,
    /// The uncached latencies; the first is the one that estimated latencies rest on.
    pub references: Vec<Reference>,
}

/// The best schedule for a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The evaluation of the schedule.
    pub evaluation: Evaluation,
    /// The evaluation of the uncached run; absent until it is evaluated.
    pub baseline: Option<Evaluation>,
    /// Uncached latency divided by the schedule's.
    pub speedup: f64,
    /// The share kept of the uncached quality; absent if that is 0.
    pub quality_ratio: Option<f64>,
    /// The search's quality metric.
    pub quality_metric: String,
    /// The uncached latencies; the first is the one that estimated latencies rest on.
    pub references: Vec<Reference>,
}

/// An evaluation in short, as it comes with an event.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationNote {
    /// The candidate's number.
    pub candidate: CandidateId,
    /// The number of denoising steps.
    pub steps: u32,
    /// The schedule's id.
    pub schedule_id: Foreign,
    /// Where the schedule comes from; see [`Evaluation::origin`].
    pub origin: Foreign,
    /// The metrics by name.
    pub values: BTreeMap<String, f64>,
    /// The name of the worker that measured it.
    pub worker_name: Foreign,
}
