//! The engine's state as messages.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{BUILTIN_METRICS, CandidateId, SearchId, SearchSpec, WorkerId};
use evocache_proto::pb;

use crate::engine::{LeaseKey, Search, Standing, State, Worker};
use crate::ports::ModelFacts;
use crate::server::limits;
use evocache_domain::estimate::Estimate;
use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease;
use evocache_domain::reference::Reference;
use evocache_domain::search::{Breeder, ImportedNames, OperatorShare};
use evocache_domain::time::Timestamp;

/// Kinds of devices for which an answer has the uncached latency.
const REFERENCES: usize = 16;

pub(super) fn time(time: Timestamp) -> prost_types::Timestamp {
    let seconds = i64::try_from(time.0 / 1000).unwrap_or(i64::MAX);
    prost_types::Timestamp { seconds, nanos: (time.0 % 1000) as i32 * 1_000_000 }
}

pub(super) fn span(span: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: span.subsec_nanos() as i32 }
}

/// How much of a search is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// All fields.
    Full,
    /// Without prompts and imported schedules, the largest fields.
    List,
}

pub(super) fn search(state: &State, search: &Search, now: Timestamp, ttl: Duration, detail: Detail) -> pb::Search {
    let mut spec: pb::SearchSpec = AsRef::<SearchSpec>::as_ref(&search.spec).into();
    if detail == Detail::List {
        spec.prompts.clear();
        spec.imported.clear();
    }
    pb::Search {
        search_id: search.id.to_string(),
        uid: search.uid.to_string(),
        spec: Some(spec),
        state: pb::SearchState::from(search.phase).into(),
        end_reason: reason(state, search, now, ttl),
        create_time: Some(time(search.created)),
        start_time: search.started.map(time),
        end_time: search.ended.map(time),
        model: search.model().map(model_facts),
        progress: Some(progress(state, search, now)),
        insight: (detail == Detail::Full).then(|| insight(search)),
        reference_latencies: references(search),
        prompt_count: search.spec.prompts.len() as u64,
        imported_count: search.spec.imported.len() as u64,
    }
}

/// The uncached latencies that latencies in time rest on.
pub(super) fn references(search: &Search) -> Vec<pb::ReferenceLatency> {
    let message = |r: Reference| pb::ReferenceLatency {
        device: r.device,
        uncached_us: r.uncached_us,
        spread: r.spread,
        measurements: r.measurements,
    };
    search.totals.references.all().into_iter().take(REFERENCES).map(message).collect()
}

fn insight(search: &Search) -> pb::Insight {
    let Some(breeder) = search.breeder() else { return pb::Insight::default() };
    let operator =
        |share: OperatorShare| pb::OperatorShare { operator: share.operator, results: share.results, gain: share.gain };
    let models = breeder.model_correlations().into_iter();
    pb::Insight {
        operators: breeder.operator_shares().into_iter().map(operator).collect(),
        models: models.map(|(name, correlation)| pb::ModelRecord { name: name.to_owned(), correlation }).collect(),
        latency_noise: breeder.latency_noise(),
        profiled: breeder.is_profiled(),
    }
}

/// Why the search is in its state; for a search that goes on, what it waits for.
pub(super) fn reason(state: &State, search: &Search, now: Timestamp, ttl: Duration) -> String {
    if search.reason.is_empty() { state.why_waiting(search, now, limits::silence(ttl)) } else { search.reason.clone() }
}

fn model_facts(model: &ModelFacts) -> pb::ModelFacts {
    pb::ModelFacts {
        fingerprint: model.fingerprint.clone(),
        layout: Some(model.layout.as_ref().into()),
        metrics: model.metrics.iter().map(Into::into).collect(),
        cost: model.cost.as_ref().map(Into::into),
    }
}

pub(super) fn progress(state: &State, search: &Search, now: Timestamp) -> pb::Progress {
    let breeder = search.breeder();
    let mut holders: Vec<_> = search
        .leased
        .iter()
        .filter_map(|&id| match &search.candidate(id)?.lease {
            lease::State::Leased { worker, .. } if state.workers.contains_key(worker) => Some(worker),
            _ => None,
        })
        .collect();
    holders.sort_unstable();
    holders.dedup();
    pb::Progress {
        evaluations: search.evaluations.len() as u64,
        failed: search.failed,
        running: search.leased.len() as u32,
        front_size: breeder.map_or(0, |b| b.front().len() as u32),
        hypervolume: breeder.map_or(0.0, |b| b.hypervolume()),
        seeds_hypervolume: breeder.map_or(0.0, |b| b.seeds_hypervolume()),
        best_speedup: breeder.and_then(Breeder::best_speedup),
        seeds_best_speedup: breeder.and_then(Breeder::seeds_best_speedup),
        device_time: Some(span(search.totals.device_time)),
        remaining: search.remaining(now).map(span),
        workers: holders.len() as u32,
        spent: search.spent(),
    }
}

/// An evaluation at one moment. Cheap to make on the engine's thread; [`message`](Self::message) is called elsewhere.
pub(super) struct Row {
    search: SearchId,
    evaluation: Arc<Evaluation>,
    latency: Option<Estimate>,
    uncached_us: Option<f64>,
    is_excluded: bool,
    imported: Arc<ImportedNames>,
}

impl Row {
    pub(super) fn of(search: &Search, evaluation: &Arc<Evaluation>) -> Self {
        let breeder = search.breeder();
        Self {
            search: search.id.clone(),
            evaluation: evaluation.clone(),
            latency: breeder.and_then(|breeder| breeder.latency_ratio(evaluation.candidate)),
            uncached_us: search.totals.references.uncached_us(),
            is_excluded: search.excluded.contains(&evaluation.worker),
            imported: breeder.map_or_else(Arc::default, |breeder| breeder.imported().clone()),
        }
    }

    pub(super) fn candidate(&self) -> CandidateId {
        self.evaluation.candidate
    }

    pub(super) fn message(&self) -> pb::Evaluation {
        let e = &self.evaluation;
        let measurement = &e.measurement;
        let hit_rate = e.schedule.cache_hit_rate();
        let declared = measurement.metrics.iter().map(|m| m.name.as_str());
        let names = BUILTIN_METRICS.iter().map(|(name, ..)| *name).chain(declared);
        // The id is a digest, which is computed only if something was imported.
        let imported = (!self.imported.is_empty()).then(|| self.imported.get(&e.schedule.id())).flatten();
        pb::Evaluation {
            search_id: self.search.to_string(),
            candidate: e.candidate.0,
            schedule: Some(e.schedule.as_ref().into()),
            provenance: Some(pb::Provenance {
                parents: e.provenance.parents.iter().map(|p| p.0).collect(),
                operator: e.provenance.origin.to_string(),
                seed_family: e.provenance.seed_family.clone(),
                imported: imported.cloned().unwrap_or_default(),
            }),
            // The profile is for the search only, and may be larger than everything else.
            measurement: Some(pb::Measurement { profile: None, ..measurement.into() }),
            worker_id: e.worker.to_string(),
            worker_name: e.worker_name.clone(),
            device: e.device.clone(),
            start_time: Some(time(e.started)),
            end_time: Some(time(e.finished)),
            attempt: e.attempt,
            excluded: self.is_excluded,
            values: names.filter_map(|n| Some((n.to_owned(), measurement.value(n, hit_rate)?))).collect(),
            latency_ratio: self.latency.map(|l| pb::Estimate {
                value: l.value,
                deviation: l.deviation,
                measurements: l.measurements,
            }),
            estimated_latency_us: self.latency.zip(self.uncached_us).map(|(l, uncached)| l.value * uncached),
        }
    }
}

pub(super) fn lease_ref(key: &LeaseKey) -> pb::LeaseRef {
    pb::LeaseRef { search_ref: key.search.to_string(), candidate: key.candidate.0, epoch: key.epoch.0 }
}

pub(super) fn worker(state: &State, id: &WorkerId, worker: &Worker, now: Timestamp, ttl: Duration) -> pb::Worker {
    let declaration = &worker.registration.declaration;
    let standing = match worker.standing(now, limits::silence(ttl)) {
        Standing::Alive => pb::WorkerState::Alive,
        Standing::Silent => pb::WorkerState::Silent,
        Standing::Gone => pb::WorkerState::Gone,
        Standing::Draining => pb::WorkerState::Draining,
        Standing::Quarantined => pb::WorkerState::Quarantined,
    };
    let leases = state.searches.values().flat_map(|search| {
        search.leased.iter().filter_map(move |&candidate| match &search.candidate(candidate)?.lease {
            lease::State::Leased { worker, epoch, .. } if worker == id => {
                Some(lease_ref(&LeaseKey { search: search.reference(), candidate, epoch: *epoch }))
            }
            _ => None,
        })
    });
    pb::Worker {
        worker_id: id.to_string(),
        name: declaration.name.clone(),
        device: declaration.device.clone(),
        software: declaration.software.clone(),
        model: declaration.model.clone(),
        fingerprint: declaration.fingerprint.clone(),
        state: standing.into(),
        register_time: Some(time(worker.registration.at)),
        last_seen_time: Some(time(worker.seen)),
        leases: leases.collect(),
        completed: worker.completed,
        failed: worker.failed,
        quarantine: worker.quarantine.clone().unwrap_or_default(),
        idle_reason: if standing == pb::WorkerState::Alive { state.why_idle(worker) } else { String::new() },
        metrics: declaration.metrics.iter().map(|metric| metric.name.clone()).collect(),
    }
}
