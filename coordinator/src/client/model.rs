//! What the coordinator tells: searches, evaluations, fronts and workers, checked.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use evocache_proto::domain::{
    Budget, CandidateId, CostModel, Direction, Kept, Layout, Maker, Measurement, MetricDeclaration, Objective, Origin,
    Schedule, SearchId, SpecDraft, WorkerId,
};

use super::Foreign;

/// Where a search stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchState {
    /// No worker with its model has asked for work yet.
    Pending,
    /// Candidates are being evaluated.
    Running,
    /// Hands out no candidates.
    Paused,
    /// The budget is used up, or there is nothing left to try.
    Completed,
    /// Ended by a person.
    Stopped,
    /// Cannot go on.
    Failed,
}

impl SearchState {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Stopped | Self::Failed)
    }

    /// In lower case, for people and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// How far a search is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Finished evaluations.
    pub evaluations: u64,
    /// Candidates given up.
    pub failed: u64,
    /// Candidates in evaluation.
    pub running: u32,
    /// Non-dominated evaluations.
    pub front_size: u32,
    /// Of the objectives relative to the uncached run, in `[0, 1]`.
    pub hypervolume: f64,
    /// That of the heuristic seeds alone.
    pub seeds_hypervolume: f64,
    /// Largest speed-up with at least 98 % of the uncached quality.
    pub best_speedup: Option<f64>,
    /// That of the heuristic seeds alone.
    pub seeds_best_speedup: Option<f64>,
    /// Time that devices were busy.
    pub device_time: Duration,
    /// Estimate of the time that is left.
    pub remaining: Option<Duration>,
    /// Workers that take part.
    pub workers: u32,
    /// Evaluations as the budget counts them: one on a part of the prompts counts as that part.
    pub spent: f64,
}

impl Progress {
    /// How much of a budget of evaluations is used, rounded down.
    pub fn used(&self) -> u64 {
        // Parts add up to a whole only nearly.
        (self.spent + 1e-6).floor() as u64
    }
}

/// What an operator had a part in.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorShare {
    /// The operator, or "seed" for heuristic schedules.
    pub operator: Foreign,
    /// Results that it had a part in.
    pub results: u64,
    /// Hypervolume that it added to the front.
    pub gain: f64,
}

/// How well one of the models of the error has predicted so far.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRecord {
    /// The model.
    pub name: Foreign,
    /// Kendall's rank correlation of what it predicted and what was measured; absent while there are too few.
    pub correlation: Option<f64>,
}

/// How a search searches.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Insight {
    /// What each operator has added.
    pub operators: Vec<OperatorShare>,
    /// The rival models.
    pub models: Vec<ModelRecord>,
    /// Relative standard deviation of one measurement's latency ratio; absent while no schedule was measured twice.
    pub latency_noise: Option<f64>,
    /// Whether a calibration profile was measured.
    pub profiled: bool,
}

impl Insight {
    /// What all operators together have added.
    pub fn total_gain(&self) -> f64 {
        self.operators.iter().map(|o| o.gain).sum()
    }
}

/// What the first worker of a search declared about the model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// Digest of weights and configuration.
    pub fingerprint: Foreign,
    /// What can be cached.
    pub layout: Layout,
    /// The quality metrics.
    pub metrics: Vec<MetricDeclaration>,
    /// Costs, if known.
    pub cost: Option<CostModel>,
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Its id.
    pub id: SearchId,
    /// What it searches for. In a list: without prompts and imported schedules.
    pub spec: SpecDraft,
    /// Where it stands.
    pub state: SearchState,
    /// Why it ended; may be empty.
    pub end_reason: Foreign,
    /// When it was created.
    pub create_time: Option<SystemTime>,
    /// When the first worker joined.
    pub start_time: Option<SystemTime>,
    /// When it ended.
    pub end_time: Option<SystemTime>,
    /// What the workers declared; absent while pending.
    pub model: Option<ModelFacts>,
    /// How far it is.
    pub progress: Progress,
    /// How it searches. In a list: absent.
    pub insight: Option<Insight>,
    /// Its uncached latencies; what is told in time rests on the first.
    pub references: Vec<Reference>,
    /// How many prompts it has, also in a list.
    pub prompts: u64,
    /// How many imported schedules, also in a list.
    pub imported: u64,
}

/// How long an image takes uncached on one kind of device, by all evaluations of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The device.
    pub device: Foreign,
    /// Microseconds per image: the median.
    pub uncached_us: f64,
    /// Half the distance between the quartiles, relative to the median.
    pub spread: f64,
    /// Evaluations that it rests on.
    pub measurements: u64,
}

impl Search {
    /// The metric that "quality" means: the first objective that is no built-in measurement.
    pub fn quality_metric(&self) -> Option<&str> {
        self.spec.quality().map(|o| o.metric.as_str())
    }

    /// Whether an evaluation was made on all prompts, and not on the first few of them. Needs the prompts, so not for
    /// a search of a list.
    pub fn is_whole(&self, evaluation: &Evaluation) -> bool {
        evaluation.prompts() >= self.spec.prompts.len()
    }
}

/// The family of the uncached run, and what coordinators called it before.
const UNCACHED: [&str; 2] = ["uncached", "all-compute"];

pub(super) fn origin(operator: &str, family: &str, imported: &[Foreign]) -> Foreign {
    let Ok(origin) = operator.parse::<Origin>();
    match imported {
        _ if !origin.is_seed() => origin.maker().map_or_else(|| operator.into(), |maker| maker.to_string().into()),
        _ if UNCACHED.contains(&family) => UNCACHED[0].into(),
        [] if family.is_empty() => operator.into(),
        [] => family.into(),
        names => names.iter().map(Foreign::raw).collect::<Vec<_>>().join(", ").into(),
    }
}

/// What is believed of a number that was measured with noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its relative standard deviation.
    pub deviation: f64,
    /// Measurements of this very schedule that it rests on.
    pub measurements: u32,
}

/// A finished evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The n-th candidate; 0 is the uncached run.
    pub candidate: CandidateId,
    /// What was evaluated.
    pub schedule: Schedule,
    /// Candidates that it was bred from.
    pub parents: Vec<CandidateId>,
    /// The operators that made it.
    pub operator: Foreign,
    /// The family of the heuristic schedule with which its line began.
    pub seed_family: Foreign,
    /// The imported schedules that it is, by name.
    pub imported: Vec<Foreign>,
    /// What was measured.
    pub measurement: Measurement,
    /// Built-in metrics and the mean of every declared one, by name.
    pub values: BTreeMap<String, f64>,
    /// Who measured.
    pub worker_id: Foreign,
    /// That worker's name.
    pub worker_name: Foreign,
    /// On which device.
    pub device: Foreign,
    /// When the evaluation began.
    pub start_time: Option<SystemTime>,
    /// When its result came.
    pub end_time: Option<SystemTime>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Whether the worker is in quarantine, so that the result counts no more.
    pub disowned: bool,
    /// The latency ratio by all measurements of the schedule; absent where it is not told.
    pub estimate: Option<Estimate>,
    /// Microseconds per image by that and the search's reference; absent where it is not told.
    pub estimated_latency_us: Option<f64>,
}

impl Evaluation {
    /// Whether it is a heuristic schedule and not offspring.
    pub fn is_seed(&self) -> bool {
        let Ok(origin) = self.operator.raw().parse::<Origin>();
        origin == Origin::New(Maker::Seed)
    }

    /// Where it comes from, in a word: the name of an imported schedule, the family of a heuristic
    /// one, or the operators that made it.
    pub fn origin(&self) -> Foreign {
        origin(self.operator.raw(), self.seed_family.raw(), &self.imported)
    }

    /// Latency over the uncached latency on the same device: by all measurements of the schedule where the coordinator
    /// tells that, else as this evaluation measured it.
    pub fn latency_ratio(&self) -> f64 {
        self.estimate.map_or_else(|| self.measurement.latency_ratio(), |e| e.value)
    }

    /// Uncached latency over this one's.
    pub fn speedup(&self) -> f64 {
        1.0 / self.latency_ratio()
    }

    /// Microseconds per image: the latency ratio times the search's uncached latency, or the one that was measured beside
    /// it where the coordinator does not tell that.
    pub fn latency(&self) -> f64 {
        self.estimated_latency_us.unwrap_or_else(|| self.latency_ratio() * self.measurement.baseline_latency())
    }

    /// Measurements of the schedule that the latency ratio rests on.
    pub fn measurements(&self) -> u32 {
        self.estimate.map_or(1, |e| e.measurements)
    }

    /// How many prompts it was made on.
    pub fn prompts(&self) -> usize {
        self.measurement.metrics.first().map_or(0, |m| m.values.len())
    }

    /// Mean of a metric; a latency by all measurements.
    pub fn value(&self, metric: &str) -> Option<f64> {
        match metric {
            "latency_ratio" => Some(self.latency_ratio()),
            "latency_us" => Some(self.latency()),
            other => self.measurement.value(other, self.schedule.cache_hit_rate()),
        }
    }

    /// Whether it keeps the objective's bound, if there is one.
    pub fn keeps(&self, objective: &Objective) -> bool {
        let Some((bound, value)) = objective.bound.zip(self.value(&objective.metric)) else { return true };
        match objective.direction {
            Direction::Minimize => value <= bound,
            Direction::Maximize => value >= bound,
        }
    }

    /// What it keeps of the uncached run of the same worker, where the objective is a quality metric.
    pub fn kept(&self, objective: &Objective) -> Option<Kept> {
        let measured = self.measurement.metric(&objective.metric)?;
        Some(Kept::new(objective.direction, measured.mean(), measured.baseline_mean))
    }
}

/// The non-dominated evaluations.
#[derive(Debug, Clone, PartialEq)]
pub struct Front {
    /// Fastest first.
    pub evaluations: Vec<Evaluation>,
    /// The uncached run, once it is evaluated.
    pub baseline: Option<Evaluation>,
    /// Of the whole front.
    pub hypervolume: f64,
    /// As in [`Search`].
    pub references: Vec<Reference>,
}

/// The answer to "which schedule shall I use".
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The evaluation of the schedule.
    pub evaluation: Evaluation,
    /// The uncached run beside it; absent until it was measured for itself.
    pub baseline: Option<Evaluation>,
    /// Uncached latency over the schedule's.
    pub speedup: f64,
    /// The share kept of the uncached quality; absent where that is zero.
    pub quality_ratio: Option<f64>,
    /// The metric that quality means.
    pub quality_metric: String,
    /// As in [`Search`].
    pub references: Vec<Reference>,
}

/// An evaluation in a few words, as it comes with a change.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationNote {
    /// The candidate.
    pub candidate: CandidateId,
    /// Its steps.
    pub steps: u32,
    /// The schedule's id.
    pub schedule_id: Foreign,
    /// The operators that made it, or the seed family.
    pub origin: Foreign,
    /// Metrics by name.
    pub values: BTreeMap<String, f64>,
    /// Who measured.
    pub worker_name: Foreign,
}

/// One message of a watched search.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one exists at a time, and nearly all are the large one")]
pub enum WatchEvent {
    /// The state has changed, or is told for the first time.
    State {
        /// Where the search stands.
        state: SearchState,
        /// How far it is.
        progress: Progress,
        /// Why it ended; may be empty.
        end_reason: Foreign,
        /// The evaluation that changed it.
        evaluation: Option<EvaluationNote>,
        /// When it ends, if the coordinator tells.
        budget: Option<Budget>,
    },
    /// The coordinator cannot be reached at the moment; the watch goes on by itself.
    Reconnecting {
        /// What is wrong.
        problem: String,
        /// When the next attempt is made.
        delay: Duration,
    },
}

/// Whether a worker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Heard of lately.
    Alive,
    /// Silent for long, with a lease that soon expires.
    Silent,
    /// Silent for long, without a lease: it has died, or left without a word.
    Gone,
    /// Gets no more work.
    Draining,
    /// Others cannot repeat what it has measured: gets no more work, and its results count no more.
    Quarantined,
}

impl WorkerState {
    /// In lower case, for people and JSON.
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

/// What a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseNote {
    /// The search.
    pub search_id: Foreign,
    /// The candidate.
    pub candidate: CandidateId,
}

/// A worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Its name for people.
    pub name: Foreign,
    /// Its device.
    pub device: Foreign,
    /// Its software.
    pub software: Foreign,
    /// The model that it has loaded.
    pub model: Foreign,
    /// That model's digest.
    pub fingerprint: Foreign,
    /// Whether it is there.
    pub state: WorkerState,
    /// When it registered.
    pub register_time: Option<SystemTime>,
    /// When it was heard of last.
    pub last_seen_time: Option<SystemTime>,
    /// What it is evaluating.
    pub leases: Vec<LeaseNote>,
    /// Evaluations that it has finished.
    pub completed: u64,
    /// Evaluations that it could not do.
    pub failed: u64,
    /// Why it is in quarantine; empty if it is not.
    pub quarantine: Foreign,
    /// Why it has nothing to do; empty if it has something, or is to get nothing.
    pub idle_reason: Foreign,
    /// What it measures beside latency; nothing from a coordinator that does not tell.
    pub metrics: Vec<Foreign>,
}

/// A time as RFC 3339, UTC.
pub fn rfc3339(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
}
