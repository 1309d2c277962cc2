//! Searches: their state, progress and events.

use std::time::{Duration, SystemTime};

use evocache_proto::domain::{Budget, CostModel, Layout, MetricDeclaration, SearchId, SearchState, SpecDraft};

use super::evaluation::{Evaluation, EvaluationNote};
use super::reference::Reference;
use crate::client::foreign::Foreign;

/// The progress of a search.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// Finished evaluations.
    pub evaluations: u64,
    /// Candidates that were given up.
    pub failed: u64,
    /// Candidates in evaluation.
    pub running: u32,
    /// Non-dominated evaluations.
    pub front_size: u32,
    /// The hypervolume of the front, relative to the uncached run, in `[0, 1]`.
    pub hypervolume: f64,
    /// The hypervolume of the heuristic seeds alone.
    pub seeds_hypervolume: f64,
    /// The largest speed-up at 98 % of the uncached quality or more.
    pub best_speedup: Option<f64>,
    /// The same for the heuristic seeds alone.
    pub seeds_best_speedup: Option<f64>,
    /// Sum of the time that devices were busy.
    pub device_time: Duration,
    /// The estimated time to the end.
    pub remaining: Option<Duration>,
    /// Workers with a lease on a candidate.
    pub workers: u32,
    /// Evaluations as the budget counts them: one on a part of the prompts counts as that part.
    pub spent: f64,
}

impl Progress {
    /// The evaluations used of the budget, rounded down.
    pub fn used(&self) -> u64 {
        // Sums of fractions are not exact.
        (self.spent + 1e-6).floor() as u64
    }
}

/// The share of an operator in the results.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorShare {
    /// The operator, or "seed" for heuristic schedules.
    pub operator: Foreign,
    /// Results that the operator contributed to.
    pub results: u64,
    /// Hypervolume that these results added to the front.
    pub gain: f64,
}

/// The accuracy of one error model so far.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRecord {
    /// The error model.
    pub name: Foreign,
    /// Kendall's rank correlation of predicted and measured quality loss; absent while there are too few results.
    pub correlation: Option<f64>,
}

/// How a search proceeds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Insight {
    /// The share of each operator.
    pub operators: Vec<OperatorShare>,
    /// The error models.
    pub models: Vec<ModelRecord>,
    /// Relative standard deviation of one measured latency ratio; absent until a schedule was measured twice.
    pub latency_noise: Option<f64>,
    /// Whether a calibration profile was measured.
    pub profiled: bool,
}

impl Insight {
    /// The hypervolume that all operators added.
    pub fn total_gain(&self) -> f64 {
        self.operators.iter().map(|o| o.gain).sum()
    }
}

/// What the first worker of a search declared about its model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// Digest of the weights and the configuration.
    pub fingerprint: Foreign,
    /// The layout of slots.
    pub layout: Layout,
    /// The quality metrics.
    pub metrics: Vec<MetricDeclaration>,
    /// The cost model, if known.
    pub cost: Option<CostModel>,
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// The id.
    pub id: SearchId,
    /// The specification; in a list, without prompts and imported schedules.
    pub spec: SpecDraft,
    /// The state.
    pub state: SearchState,
    /// Why the search ended or what it waits for; may be empty.
    pub end_reason: Foreign,
    /// The time of creation.
    pub create_time: Option<SystemTime>,
    /// The time at which the first worker joined.
    pub start_time: Option<SystemTime>,
    /// The time of the end.
    pub end_time: Option<SystemTime>,
    /// What the workers declared; absent while the search is pending.
    pub model: Option<ModelFacts>,
    /// The progress.
    pub progress: Progress,
    /// How the search proceeds; absent in a list.
    pub insight: Option<Insight>,
    /// The uncached latencies; estimated latencies in time rest on the first.
    pub references: Vec<Reference>,
    /// The number of prompts, also in a list.
    pub prompts: u64,
    /// The number of imported schedules, also in a list.
    pub imported: u64,
}

impl Search {
    /// The quality metric: the first objective that is not a built-in metric.
    pub fn quality_metric(&self) -> Option<&str> {
        self.spec.quality().map(|o| o.metric.as_str())
    }

    /// Whether an evaluation was made on all prompts. Needs the prompts, which a search in a list does not have.
    pub fn is_whole(&self, evaluation: &Evaluation) -> bool {
        evaluation.prompts() >= self.spec.prompts.len()
    }
}

/// An event of a watched search.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one exists at a time, and nearly all are the large one")]
pub enum WatchEvent {
    /// The search has changed, or this is the first event.
    State {
        /// The state of the search.
        state: SearchState,
        /// Its progress.
        progress: Progress,
        /// Why it ended or what it waits for; may be empty.
        end_reason: Foreign,
        /// The evaluation that changed it.
        evaluation: Option<EvaluationNote>,
        /// Its budget; absent from a coordinator that does not send it.
        budget: Option<Budget>,
    },
    /// The coordinator is unreachable; the watch reconnects by itself.
    Reconnecting {
        /// Why it is unreachable.
        problem: String,
        /// The time until the next attempt.
        delay: Duration,
    },
}
