//! GetBestSchedule: a question read from its message, and its answer written into one. What is best stands in
//! `domain/query.rs`.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{
    CandidateId, Direction, MetricDeclaration, SearchRef, SearchSpec, builtin_direction, quality_ratio,
};
use evocache_proto::pb;
use evocache_proto::pb::get_best_schedule_request::Constraint;
use tonic::Status;

use super::encode::Row;
use super::{encode, limits, status};
use crate::engine::{Refusal, Search};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::query::{self, Answer, Condition, Miss, Operator, Preference, Question, SPEEDUP, Standing};

/// A question as it came: what it means depends on the search's metrics.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    constraint: Option<Constraint>,
    conditions: Vec<pb::Condition>,
    preference: Preference,
    ignore_bounds: bool,
}

impl Asked {
    /// Reads and checks what can be checked without the search.
    pub(super) fn read(message: &pb::GetBestScheduleRequest) -> Result<Self, Status> {
        if message.conditions.len() > limits::CONDITIONS {
            return Err(status::invalid("conditions", format!("at most {}", limits::CONDITIONS)));
        }
        if let Some(constraint) = &message.constraint {
            check(constraint)?;
        }
        Ok(Self {
            constraint: message.constraint,
            conditions: message.conditions.clone(),
            preference: preference(message.preference)?,
            ignore_bounds: message.ignore_bounds,
        })
    }

    /// The candidate that answers it.
    pub(super) fn choose(self, seen: &Seen) -> Result<Chosen, Status> {
        let Self { constraint, conditions, preference, ignore_bounds } = self;
        let first = constraint.and_then(|constraint| named(&seen.spec, constraint)).map(Ok);
        let others = conditions.iter().enumerate().map(|(i, message)| condition(i, message, seen));
        let conditions = first.into_iter().chain(others).collect::<Result<_, _>>()?;
        let question = Question { conditions, preference, ignore_bounds };
        let nothing = || status::no_schedule(format!("search '{}' has no evaluation yet", seen.search.id), &[]);
        if seen.standings.is_empty() {
            return Err(nothing());
        }
        question.check(&seen.metrics).map_err(|e| status::invalid("conditions", e))?;
        let standings = seen.standings.iter().map(|(evaluation, latency_ratio)| Standing {
            candidate: evaluation.candidate,
            measurement: &evaluation.measurement,
            cache_hit_rate: evaluation.schedule.cache_hit_rate(),
            latency_ratio: *latency_ratio,
            latency_us: latency_ratio * seen.uncached_us,
        });
        let standings: Vec<Standing<'_>> = standings.collect();
        let answer = query::best(&seen.spec, &seen.metrics, &standings, &question);
        match answer.map_err(|e| status::invalid("conditions", e))? {
            Answer::Found(candidate) => Ok(Chosen { search: seen.search.clone(), candidate, question }),
            Answer::Nearest(miss) => Err(nearest(&miss)),
            Answer::Nothing => Err(nothing()),
        }
    }
}

/// What of a search a question looks at, as it was at one moment: little to copy. The answer is chosen where the engine does
/// not wait for it.
pub(super) struct Seen {
    search: SearchRef,
    spec: Arc<SearchSpec>,
    metrics: Vec<MetricDeclaration>,
    uncached_us: f64,
    /// Each schedule's evaluation and what is believed of its latency ratio.
    standings: Vec<(Arc<Evaluation>, f64)>,
}

impl Seen {
    pub(super) fn of(search: &Search) -> Self {
        let (model, breeder) = (search.model(), search.breeder());
        let standing = |(candidate, ratio)| Some((search.evaluation(candidate)?.clone(), ratio));
        Self {
            search: search.reference(),
            spec: search.spec.clone(),
            metrics: model.map_or_else(Vec::new, |model| model.metrics.clone()),
            uncached_us: search.totals.references.uncached_us().unwrap_or(f64::NAN),
            standings: breeder.into_iter().flat_map(|breeder| breeder.standing().filter_map(standing)).collect(),
        }
    }
}

/// The answer to a question, as far as it is chosen.
pub(super) struct Chosen {
    search: SearchRef,
    candidate: CandidateId,
    question: Question,
}

impl Chosen {
    /// The answer, with all that the search has to tell of it.
    pub(super) fn message(&self, search: &Search) -> Result<pb::GetBestScheduleResponse, Status> {
        // Since it was chosen the search may have been deleted.
        let evaluation = search.evaluation(self.candidate).filter(|_| search.is(&self.search));
        let evaluation = evaluation.ok_or_else(|| status::refusal(Refusal::NoSearch(search.id.clone())))?;
        let latency = search.breeder().and_then(|breeder| breeder.latency_ratio(self.candidate));
        let quality = search.spec.quality();
        let values = quality.and_then(|q| evaluation.measurement.metric(&q.metric));
        let bounds = if self.question.ignore_bounds { vec![] } else { query::bounds(&search.spec) };
        Ok(pb::GetBestScheduleResponse {
            evaluation: Some(Row::of(search, evaluation).message()),
            layout: search.model().map(|model| model.layout.as_ref().into()),
            baseline: search.baseline().map(|e| Row::of(search, e).message()),
            speedup: 1.0 / latency.map_or_else(|| evaluation.measurement.latency_ratio(), |l| l.value),
            quality_ratio: quality.zip(values).and_then(|(q, v)| quality_ratio(q.direction, v.mean(), v.baseline_mean)),
            quality_metric: quality.map(|q| q.metric.clone()).unwrap_or_default(),
            reference_latencies: encode::references(search),
            conditions: self.question.conditions.iter().chain(&bounds).map(told).collect(),
        })
    }
}

fn check(constraint: &Constraint) -> Result<(), Status> {
    let (field, value, signed) = match constraint {
        Constraint::MaxLatencyRatio(v) => ("max_latency_ratio", *v, false),
        Constraint::MinSpeedup(v) => ("min_speedup", *v, false),
        Constraint::MaxLatency(d) => {
            let latency = Duration::try_from(*d).map_err(|_| status::invalid("max_latency", "must be positive"))?;
            ("max_latency", latency.as_secs_f64(), false)
        }
        Constraint::MinQuality(v) => ("min_quality", *v, true),
        Constraint::MinQualityRatio(v) => ("min_quality_ratio", *v, false),
        Constraint::MaxCacheBytes(_) => return Ok(()),
    };
    match value.is_finite() && (signed || value > 0.0) {
        true => Ok(()),
        false if signed => Err(status::invalid(field, format!("{value} must be a number"))),
        false => Err(status::invalid(field, format!("{value} must be a positive number"))),
    }
}

/// A constraint in the words of conditions.
fn named(spec: &SearchSpec, constraint: Constraint) -> Option<Condition> {
    Some(match constraint {
        Constraint::MaxLatencyRatio(v) => Condition::at_most("latency_ratio", v),
        Constraint::MinSpeedup(v) => Condition::at_least(SPEEDUP, v),
        Constraint::MaxLatency(d) => Condition::at_most("latency_us", Duration::try_from(d).ok()?.as_secs_f64() * 1e6),
        Constraint::MinQuality(v) => {
            let quality = spec.quality()?;
            Condition::as_good_as(&quality.metric, quality.direction, v)
        }
        Constraint::MinQualityRatio(v) => Condition::keeps(&spec.quality()?.metric, v),
        Constraint::MaxCacheBytes(v) => Condition::at_most("cache_bytes", v as f64),
    })
}

/// Reads a condition; what is left to the search is named in its words.
fn condition(i: usize, message: &pb::Condition, seen: &Seen) -> Result<Condition, Status> {
    let invalid = |field: &str, problem: &str| status::invalid(&format!("conditions[{i}].{field}"), problem);
    let metric = match (message.metric.as_str(), seen.spec.quality()) {
        ("", Some(quality)) => quality.metric.as_str(),
        (metric, _) => metric,
    };
    let minimised = || direction(seen, metric) == Some(Direction::Minimize);
    let operator = match pb::Operator::try_from(message.operator) {
        Ok(pb::Operator::AsGoodAs) if minimised() && !message.of_uncached => Operator::AtMost,
        Ok(pb::Operator::AtLeast | pb::Operator::AsGoodAs) => Operator::AtLeast,
        Ok(pb::Operator::AtMost) => Operator::AtMost,
        Ok(pb::Operator::Unspecified) | Err(_) => return Err(invalid("operator", "must be one of those of Operator")),
    };
    // Ratios of costs are shares of the uncached run's already.
    let share = matches!(metric, "latency_ratio" | "macs_ratio" | "cache_hit_rate");
    let of_uncached = message.of_uncached && !share;
    Ok(Condition { metric: metric.to_owned(), operator, value: message.value, of_uncached })
}

/// Which way of a metric is better.
fn direction(seen: &Seen, metric: &str) -> Option<Direction> {
    let declared = seen.metrics.iter().find(|m| m.name == metric);
    declared.map(|m| m.direction).or_else(|| builtin_direction(metric))
}

fn told(condition: &Condition) -> pb::Condition {
    let operator = match condition.operator {
        Operator::AtLeast => pb::Operator::AtLeast,
        Operator::AtMost => pb::Operator::AtMost,
    };
    pb::Condition {
        metric: condition.metric.clone(),
        operator: operator.into(),
        value: condition.value,
        of_uncached: condition.of_uncached,
    }
}

fn preference(value: i32) -> Result<Preference, Status> {
    match pb::Preference::try_from(value) {
        Ok(pb::Preference::Unspecified | pb::Preference::Fastest) => Ok(Preference::Fastest),
        Ok(pb::Preference::BestQuality) => Ok(Preference::BestQuality),
        Ok(pb::Preference::Knee) => Ok(Preference::Knee),
        Err(_) => Err(status::invalid("preference", format!("unknown value {value}"))),
    }
}

fn nearest(miss: &Miss) -> Status {
    let mut facts = vec![("nearest_candidate", miss.candidate.to_string())];
    if let Some((condition, value)) = miss.missed.first() {
        facts.push(("missed", condition.to_string()));
        facts.push(("nearest_value", value.to_string()));
        facts.push(("wanted", condition.value.to_string()));
    }
    if let Some((candidate, _)) = &miss.beyond {
        facts.push(("beyond_bounds", candidate.to_string()));
    }
    status::no_schedule(miss.to_string(), &facts)
}
