//! Answers a question from one moment of a search.

use std::fmt;
use std::sync::Arc;

use evocache_proto::domain::{
    BUILTIN_METRICS, CandidateId, Direction, Measurement, MetricDeclaration, Preference, Question, SearchSpec,
    builtin_direction,
};

use super::choice::{Candidate, choose};
use super::condition::{Condition, SPEEDUP, bounds};
use crate::evaluation::Evaluation;

/// What a question looks at: a search at one moment. Cheap to make, so that the answer can be computed elsewhere.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What the search is for.
    pub spec: Arc<SearchSpec>,
    /// The metrics that its workers declare.
    pub metrics: Vec<MetricDeclaration>,
    /// The uncached latency that latencies in time rest on, in microseconds per image; absent before the first result.
    pub uncached_us: Option<f64>,
    /// One evaluation for each schedule, with the estimate of its latency ratio.
    pub evaluated: Vec<(Arc<Evaluation>, f64)>,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The preferred schedule among those that meet all conditions.
    Found(Best),
    /// No schedule meets all conditions.
    Nearest(Miss),
    /// Nothing is measured yet.
    Nothing,
}

/// The best schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// Its candidate.
    pub candidate: CandidateId,
    /// The estimate of its speed-up: uncached latency divided by latency.
    pub speedup: f64,
    /// The search's quality metric.
    pub quality_metric: String,
    /// The measured share of the uncached quality; absent if that quality is 0.
    pub quality_ratio: Option<f64>,
    /// All conditions that it meets: those of the question, then the bounds of the objectives.
    pub conditions: Vec<Condition>,
}

/// The candidate that comes nearest to the conditions, and what it misses.
#[derive(Debug, Clone, PartialEq)]
pub struct Miss {
    /// The nearest candidate.
    pub candidate: CandidateId,
    /// The conditions of the question.
    pub conditions: Vec<Condition>,
    /// The bounds of the search's objectives, if the question does not ignore them.
    pub bounds: Vec<Condition>,
    /// The conditions and bounds that the candidate misses, each with its value instead.
    pub missed: Vec<(Condition, f64)>,
    /// A candidate that meets the conditions but not the bounds, with the bounds that it violates.
    pub beyond: Option<(CandidateId, Vec<Condition>)>,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            |conditions: &[Condition]| conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let bounds = if self.bounds.len() == 1 { "bound" } else { "bounds" };
        match (self.conditions.is_empty(), self.bounds.is_empty()) {
            (true, _) => write!(f, "no schedule keeps the search's {bounds} {}", all(&self.bounds))?,
            (false, true) => write!(f, "no schedule has {}", all(&self.conditions))?,
            (false, false) => {
                let (asked, kept) = (all(&self.conditions), all(&self.bounds));
                write!(f, "no schedule has {asked} within the search's {bounds} {kept}")?;
            }
        }
        write!(f, "; candidate {} comes nearest, with", self.candidate)?;
        for (i, (condition, value)) in self.missed.iter().enumerate() {
            let and = if i == 0 { "" } else { " and" };
            write!(f, "{and} {} {}", condition.name(), condition.show(*value))?;
        }
        if let Some((candidate, bounds)) = &self.beyond {
            write!(f, "; candidate {candidate} has the rest, outside of the bound {}", all(bounds))?;
        }
        Ok(())
    }
}

/// Why a question cannot be answered, whatever is measured.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QuestionError {
    /// The search measures no such metric.
    #[error("no metric '{metric}' is measured in this search; there are {known}")]
    Unknown {
        /// The name in the question.
        metric: String,
        /// The names of all metrics, separated by commas.
        known: String,
    },
    /// A share of the uncached quality is asked of a metric that is not a quality metric.
    #[error("'{0}' is no quality metric, so there is no share of the uncached run's to keep")]
    NoQuality(String),
    /// A share of an uncached quality of 0 is asked for.
    #[error("the uncached run's '{0}' is 0, so there is no share of it to keep; ask for a value of it")]
    NoShare(String),
    /// The limit is NaN or infinite.
    #[error("'{metric}' is compared with {value}, which is no number")]
    NotFinite {
        /// The metric.
        metric: String,
        /// The limit.
        value: f64,
    },
}

/// The best schedule for a question.
///
/// # Errors
///
/// If the search cannot judge one of the question's conditions. Before the first result any question is answered with
/// [`Answer::Nothing`].
pub fn answer(seen: &Snapshot, question: &Question) -> Result<Answer, QuestionError> {
    if seen.evaluated.is_empty() {
        return Ok(Answer::Nothing);
    }
    let resolve = |constraint| Condition::resolve(constraint, &seen.spec, &seen.metrics);
    let asked = Asked {
        conditions: question.constraints.iter().map(resolve).collect(),
        bounds: if question.ignore_bounds { vec![] } else { bounds(&seen.spec) },
        preference: question.preference,
    };
    let standings: Vec<Standing<'_>> = seen
        .evaluated
        .iter()
        .map(|(evaluation, latency_ratio)| Standing {
            candidate: evaluation.candidate,
            measurement: &evaluation.measurement,
            cache_hit_rate: evaluation.schedule.cache_hit_rate(),
            latency_ratio: *latency_ratio,
            latency_us: latency_ratio * seen.uncached_us.unwrap_or(f64::NAN),
        })
        .collect();
    best(&seen.spec, &seen.metrics, &standings, asked)
}

/// A question in terms of its search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) conditions: Vec<Condition>,
    pub(super) bounds: Vec<Condition>,
    pub(super) preference: Preference,
}

impl Asked {
    /// Whether the search can judge each condition.
    fn check(&self, declared: &[MetricDeclaration]) -> Result<(), QuestionError> {
        for condition in &self.conditions {
            let metric = &condition.metric;
            let builtin = metric == SPEEDUP || builtin_direction(metric).is_some();
            if !builtin && !declared.iter().any(|m| m.name == *metric) {
                let known = declared.iter().map(|m| m.name.as_str());
                let builtin = BUILTIN_METRICS.iter().map(|(name, ..)| *name);
                let known: Vec<&str> = known.chain([SPEEDUP]).chain(builtin).collect();
                return Err(QuestionError::Unknown { metric: metric.clone(), known: known.join(", ") });
            }
            if builtin && condition.of_uncached {
                return Err(QuestionError::NoQuality(metric.clone()));
            }
            if !condition.value.is_finite() {
                return Err(QuestionError::NotFinite { metric: metric.clone(), value: condition.value });
            }
        }
        Ok(())
    }
}

/// A schedule as a question sees it: one measurement, and the estimates of its latency.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing<'a> {
    pub(super) candidate: CandidateId,
    pub(super) measurement: &'a Measurement,
    /// The share of decisions that are served from the cache.
    pub(super) cache_hit_rate: f64,
    pub(super) latency_ratio: f64,
    /// Microseconds per image.
    pub(super) latency_us: f64,
}

impl Standing<'_> {
    /// The value that a condition limits. `direction` is that of the condition's metric, if it is a declared one.
    fn value(&self, condition: &Condition, direction: Option<Direction>) -> Option<f64> {
        if condition.of_uncached {
            return self.measurement.metric(&condition.metric)?.kept(direction?).share();
        }
        match condition.metric.as_str() {
            SPEEDUP => Some(1.0 / self.latency_ratio),
            "latency_ratio" => Some(self.latency_ratio),
            "latency_us" => Some(self.latency_us),
            other => self.measurement.value(other, self.cache_hit_rate),
        }
    }
}

/// The best of `standings`. Schedules without a value of the search's quality metric are left out.
pub(super) fn best(
    spec: &SearchSpec,
    declared: &[MetricDeclaration],
    standings: &[Standing<'_>],
    asked: Asked,
) -> Result<Answer, QuestionError> {
    asked.check(declared)?;
    let Some(quality) = spec.quality() else { return Ok(Answer::Nothing) };
    let direction = |metric: &str| declared.iter().find(|m| m.name == metric).map(|m| m.direction);
    let judge = |conditions: &[Condition]| -> Result<Vec<Candidate>, QuestionError> {
        let each = standings.iter().filter_map(|standing| {
            let value = standing.measurement.metric(&quality.metric)?.mean();
            let mut excess = 0.0;
            for condition in conditions {
                match standing.value(condition, direction(&condition.metric)) {
                    Some(value) => excess += condition.excess(value).max(0.0),
                    None if condition.of_uncached => {
                        return Some(Err(QuestionError::NoShare(condition.metric.clone())));
                    }
                    None => excess = f64::INFINITY,
                }
            }
            Some(Ok(Candidate {
                id: standing.candidate,
                latency_ratio: standing.latency_ratio,
                loss: if quality.direction == Direction::Minimize { value } else { -value },
                cache_bytes: standing.measurement.peak_cache_bytes,
                excess,
            }))
        });
        each.collect()
    };
    let standing = |candidate: CandidateId| standings.iter().find(|s| s.candidate == candidate);
    let Asked { conditions, bounds, preference } = asked;
    let all: Vec<Condition> = conditions.iter().chain(&bounds).cloned().collect();
    let judged = judge(&all)?;
    if let Some(found) = choose(&judged, preference).and_then(standing) {
        let measured = found.measurement.metric(&quality.metric);
        return Ok(Answer::Found(Best {
            candidate: found.candidate,
            speedup: 1.0 / found.latency_ratio,
            quality_metric: quality.metric.clone(),
            quality_ratio: measured.and_then(|measured| measured.kept(quality.direction).share()),
            conditions: all,
        }));
    }
    let nearest = judged.iter().min_by(|a, b| a.excess.total_cmp(&b.excess).then_with(|| a.order(b)));
    let Some(nearest) = nearest else { return Ok(Answer::Nothing) };
    let missed = |candidate: CandidateId, of: &[Condition]| -> Vec<(Condition, f64)> {
        let value = |c: &Condition| standing(candidate).and_then(|s| s.value(c, direction(&c.metric)));
        let values = of.iter().filter_map(|c| Some((c.clone(), value(c)?)));
        values.filter(|(condition, value)| condition.excess(*value) > 0.0).collect()
    };
    let beyond = if bounds.is_empty() { None } else { choose(&judge(&conditions)?, preference) };
    let violated = |id| missed(id, &bounds).into_iter().map(|(condition, _)| condition).collect();
    Ok(Answer::Nearest(Miss {
        candidate: nearest.id,
        missed: missed(nearest.id, &all),
        beyond: beyond.map(|id| (id, violated(id))),
        conditions,
        bounds,
    }))
}
