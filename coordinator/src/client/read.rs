//! Reads messages into the client's types. An invalid message is an error, never a default.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use evocache_proto::domain::{CandidateId, Layout, Schedule, SearchId, SearchRef, SearchState, WorkerId};
use evocache_proto::text::plain;
use evocache_proto::{pb, wire};

use super::error::ClientError;
use super::foreign::Foreign;
use super::model::evaluation::{Best, Estimate, Evaluation, EvaluationNote, Front, origin};
use super::model::reference::Reference;
use super::model::search::{Insight, ModelFacts, ModelRecord, OperatorShare, Progress, Search, WatchEvent};
use super::model::worker::{LeaseNote, Worker, WorkerState};

/// A field that an answer must have.
pub(super) fn required<T>(call: &'static str, field: &'static str, value: Option<T>) -> Result<T, ClientError> {
    value.ok_or_else(|| ClientError::Malformed { call, problem: format!("'{field}' is missing") })
}

fn malformed(call: &'static str) -> impl Fn(wire::WireError) -> ClientError {
    move |e| ClientError::Malformed { call, problem: plain(&e.to_string()).into() }
}

fn time(time: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    time.and_then(|t| SystemTime::try_from(*t).ok())
}

fn span(span: Option<&prost_types::Duration>) -> Option<Duration> {
    span.and_then(|d| Duration::try_from(*d).ok())
}

fn state(call: &'static str, value: i32) -> Result<SearchState, ClientError> {
    wire::search_state(value)
        .ok_or_else(|| ClientError::Malformed { call, problem: format!("search state {value} is unknown") })
}

fn progress(p: Option<&pb::Progress>) -> Progress {
    let Some(p) = p else { return Progress::default() };
    Progress {
        evaluations: p.evaluations,
        failed: p.failed,
        running: p.running,
        front_size: p.front_size,
        hypervolume: p.hypervolume,
        seeds_hypervolume: p.seeds_hypervolume,
        best_speedup: p.best_speedup,
        seeds_best_speedup: p.seeds_best_speedup,
        device_time: span(p.device_time.as_ref()).unwrap_or_default(),
        remaining: span(p.remaining.as_ref()),
        workers: p.workers,
        // A coordinator that does not send it evaluates on all prompts only.
        spent: if p.spent > 0.0 { p.spent } else { p.evaluations as f64 },
    }
}

fn insight(m: &pb::Insight) -> Insight {
    let operator =
        |o: &pb::OperatorShare| OperatorShare { operator: o.operator.clone().into(), results: o.results, gain: o.gain };
    let record = |m: &pb::ModelRecord| ModelRecord { name: m.name.clone().into(), correlation: m.correlation };
    Insight {
        operators: m.operators.iter().map(operator).collect(),
        models: m.models.iter().map(record).collect(),
        latency_noise: m.latency_noise,
        profiled: m.profiled,
    }
}

fn estimate(call: &'static str, e: &pb::Estimate) -> Result<Estimate, ClientError> {
    let possible = e.value.is_finite() && e.value > 0.0 && e.deviation.is_finite() && e.deviation >= 0.0;
    if !possible {
        let problem = format!("a latency ratio of {} with a deviation of {} is impossible", e.value, e.deviation);
        return Err(ClientError::Malformed { call, problem });
    }
    Ok(Estimate { value: e.value, deviation: e.deviation, measurements: e.measurements })
}

pub(super) fn search(call: &'static str, m: &pb::Search) -> Result<Search, ClientError> {
    let model = m.model.as_ref().map(|facts| model_facts(call, facts)).transpose()?;
    Ok(Search {
        id: SearchId::new(m.search_id.clone()).map_err(|e| ClientError::Malformed { call, problem: e.to_string() })?,
        spec: wire::spec_draft(required(call, "search.spec", m.spec.as_ref())?).map_err(malformed(call))?,
        state: state(call, m.state)?,
        end_reason: m.end_reason.clone().into(),
        create_time: time(m.create_time.as_ref()),
        start_time: time(m.start_time.as_ref()),
        end_time: time(m.end_time.as_ref()),
        model,
        progress: progress(m.progress.as_ref()),
        insight: m.insight.as_ref().map(insight),
        references: references(&m.reference_latencies),
        // A coordinator that does not send the counts sends all of them.
        prompts: m.prompt_count.max(m.spec.as_ref().map_or(0, |spec| spec.prompts.len() as u64)),
        imported: m.imported_count.max(m.spec.as_ref().map_or(0, |spec| spec.imported.len() as u64)),
    })
}

fn references(messages: &[pb::ReferenceLatency]) -> Vec<Reference> {
    let read = |m: &pb::ReferenceLatency| Reference {
        device: m.device.as_str().into(),
        uncached_us: m.uncached_us,
        spread: m.spread,
        measurements: m.measurements,
    };
    messages.iter().map(read).collect()
}

fn model_facts(call: &'static str, m: &pb::ModelFacts) -> Result<ModelFacts, ClientError> {
    let layout = wire::layout(required(call, "search.model.layout", m.layout.as_ref())?).map_err(malformed(call))?;
    let slots = layout.slots();
    Ok(ModelFacts {
        fingerprint: m.fingerprint.clone().into(),
        layout,
        metrics: wire::metrics(&m.metrics).map_err(malformed(call))?,
        cost: m.cost.as_ref().map(|c| wire::cost_model(slots, c)).transpose().map_err(malformed(call))?,
    })
}

pub(super) fn evaluation(
    call: &'static str,
    layout: &Arc<Layout>,
    m: &pb::Evaluation,
) -> Result<Evaluation, ClientError> {
    let schedule: Schedule =
        wire::schedule(layout, required(call, "schedule", m.schedule.as_ref())?).map_err(malformed(call))?;
    let measurement =
        wire::measurement(required(call, "measurement", m.measurement.as_ref())?).map_err(malformed(call))?;
    let provenance = m.provenance.clone().unwrap_or_default();
    Ok(Evaluation {
        candidate: CandidateId(m.candidate),
        schedule,
        parents: provenance.parents.into_iter().map(CandidateId).collect(),
        operator: provenance.operator.into(),
        seed_family: provenance.seed_family.into(),
        imported: provenance.imported.into_iter().map(Into::into).collect(),
        measurement,
        values: m.values.clone(),
        worker_id: m.worker_id.clone().into(),
        worker_name: m.worker_name.clone().into(),
        device: m.device.clone().into(),
        start_time: time(m.start_time.as_ref()),
        end_time: time(m.end_time.as_ref()),
        attempt: m.attempt,
        excluded: m.excluded,
        estimate: m.latency_ratio.as_ref().map(|e| estimate(call, e)).transpose()?,
        estimated_latency_us: m.estimated_latency_us,
    })
}

pub(super) fn front(
    call: &'static str,
    last: &pb::GetFrontResponse,
    evaluations: &[pb::Evaluation],
) -> Result<Front, ClientError> {
    let Some(layout) = &last.layout else {
        return Ok(Front { evaluations: vec![], baseline: None, hypervolume: 0.0, references: vec![] });
    };
    let layout = Arc::new(wire::layout(layout).map_err(malformed(call))?);
    Ok(Front {
        evaluations: evaluations.iter().map(|m| evaluation(call, &layout, m)).collect::<Result<_, _>>()?,
        baseline: last.baseline.as_ref().map(|m| evaluation(call, &layout, m)).transpose()?,
        hypervolume: last.hypervolume,
        references: references(&last.reference_latencies),
    })
}

pub(super) fn best(call: &'static str, m: &pb::GetBestScheduleResponse) -> Result<Best, ClientError> {
    let layout = wire::layout(required(call, "layout", m.layout.as_ref())?).map_err(malformed(call))?;
    let layout = Arc::new(layout);
    Ok(Best {
        evaluation: evaluation(call, &layout, required(call, "evaluation", m.evaluation.as_ref())?)?,
        baseline: m.baseline.as_ref().map(|m| evaluation(call, &layout, m)).transpose()?,
        speedup: m.speedup,
        quality_ratio: m.quality_ratio,
        quality_metric: m.quality_metric.clone(),
        references: references(&m.reference_latencies),
    })
}

pub(super) fn watch_event(call: &'static str, m: &pb::WatchSearchResponse) -> Result<WatchEvent, ClientError> {
    Ok(WatchEvent::State {
        state: state(call, m.state)?,
        progress: progress(m.progress.as_ref()),
        end_reason: m.end_reason.clone().into(),
        evaluation: m.evaluation.as_ref().map(note),
        budget: m.budget.as_ref().map(wire::budget).transpose().map_err(malformed(call))?,
    })
}

fn note(m: &pb::Evaluation) -> EvaluationNote {
    let provenance = m.provenance.clone().unwrap_or_default();
    let imported: Vec<Foreign> = provenance.imported.into_iter().map(Into::into).collect();
    let schedule = m.schedule.clone().unwrap_or_default();
    let values: BTreeMap<String, f64> = m.values.clone();
    EvaluationNote {
        candidate: CandidateId(m.candidate),
        steps: schedule.steps,
        schedule_id: schedule.schedule_id.into(),
        origin: origin(&provenance.operator, &provenance.seed_family, &imported),
        values,
        worker_name: m.worker_name.clone().into(),
    }
}

pub(super) fn worker(call: &'static str, m: &pb::Worker) -> Result<Worker, ClientError> {
    let state = match pb::WorkerState::try_from(m.state) {
        Ok(pb::WorkerState::Alive) => WorkerState::Alive,
        Ok(pb::WorkerState::Silent) => WorkerState::Silent,
        Ok(pb::WorkerState::Gone) => WorkerState::Gone,
        Ok(pb::WorkerState::Draining) => WorkerState::Draining,
        Ok(pb::WorkerState::Quarantined) => WorkerState::Quarantined,
        Ok(pb::WorkerState::Unspecified) | Err(_) => {
            return Err(ClientError::Malformed { call, problem: format!("worker state {} is unknown", m.state) });
        }
    };
    Ok(Worker {
        id: WorkerId::new(m.worker_id.clone()).map_err(|e| ClientError::Malformed { call, problem: e.to_string() })?,
        name: m.name.clone().into(),
        device: m.device.clone().into(),
        software: m.software.clone().into(),
        model: m.model.clone().into(),
        fingerprint: m.fingerprint.clone().into(),
        state,
        register_time: time(m.register_time.as_ref()),
        last_seen_time: time(m.last_seen_time.as_ref()),
        leases: m
            .leases
            .iter()
            // The uid is for programs only.
            .filter_map(|l| l.search_ref.parse::<SearchRef>().ok().map(|search| (search, l.candidate)))
            .map(|(search, candidate)| LeaseNote {
                search_id: search.id.to_string().into(),
                candidate: CandidateId(candidate),
            })
            .collect(),
        completed: m.completed,
        failed: m.failed,
        quarantine: m.quarantine.clone().into(),
        idle_reason: m.idle_reason.clone().into(),
        metrics: m.metrics.iter().cloned().map(Into::into).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impossible_estimate_is_refused() {
        let read = |value, deviation| estimate("Call", &pb::Estimate { value, deviation, measurements: 2 });
        assert_eq!(read(0.5, 0.01), Ok(Estimate { value: 0.5, deviation: 0.01, measurements: 2 }));
        for (value, deviation) in [(0.0, 0.01), (f64::NAN, 0.01), (0.5, -0.01), (0.5, f64::INFINITY)] {
            assert!(matches!(read(value, deviation), Err(ClientError::Malformed { .. })), "{value} ±{deviation}");
        }
    }

    #[test]
    fn evaluations_count_whole_if_the_coordinator_does_not_send_their_parts() {
        let used = |spent| progress(Some(&pb::Progress { evaluations: 7, spent, ..pb::Progress::default() })).used();
        assert_eq!([used(0.0), used(2.75), used(2.9999999)], [7, 2, 3]);
    }
}
