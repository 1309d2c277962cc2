//! Answers as JSON, for `--json` and the result files; `deploy/schema/evocache.schema.json` documents them. Field names
//! are those of the gRPC contract and tell measured from estimated values.

use evocache_proto::domain::{Budget, Direction, SpecDraft, Strategy};
use evocache_proto::formats;
use serde_json::{Map, Value, json};

use crate::client::{
    Best, Evaluation, EvaluationNote, Foreign, Front, Insight, Progress, Reference, Search, SearchState, WatchEvent,
    Worker, rfc3339,
};

type Time = Option<std::time::SystemTime>;

fn time(time: Time) -> Value {
    time.map_or(Value::Null, |t| Value::String(rfc3339(t)))
}

/// A search with its specification, without the texts of the prompts.
pub fn search(s: &Search) -> Value {
    let mut spec = spec(&s.spec);
    // A listed search comes without prompts and schedules, but with their numbers.
    (spec["prompts"], spec["imported"]) = (s.prompts.into(), s.imported.into());
    json!({
        "search_id": s.id.as_str(),
        "state": s.state.as_str(),
        "end_reason": s.end_reason.raw(),
        "create_time": time(s.create_time),
        "start_time": time(s.start_time),
        "end_time": time(s.end_time),
        "progress": progress(&s.progress),
        "insight": s.insight.as_ref().map(insight),
        "quality_metric": s.quality_metric(),
        "spec": spec,
        "reference_latencies": references(&s.references),
        "model": s.model.as_ref().map(|m| json!({
            "fingerprint": m.fingerprint.raw(),
            "layout": m.layout.to_string(),
            "metrics": m.metrics.iter().map(|metric| json!({
                "name": metric.name,
                "direction": direction(metric.direction),
                "unit": metric.unit,
                "description": metric.description,
            })).collect::<Vec<_>>(),
        })),
    })
}

fn insight(i: &Insight) -> Value {
    let total = i.total_gain();
    json!({
        "operators": i.operators.iter().map(|o| json!({
            "operator": o.operator.raw(),
            "results": o.results,
            "gain": o.gain,
            "share": (total > 0.0).then(|| o.gain / total),
        })).collect::<Vec<_>>(),
        "models": i.models.iter().map(|m| json!({ "name": m.name.raw(), "correlation": m.correlation })).collect::<Vec<_>>(),
        "latency_noise": i.latency_noise,
        "profiled": i.profiled,
    })
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Minimize => "minimize",
        Direction::Maximize => "maximize",
    }
}

/// The uncached latencies, by kind of device.
fn references(references: &[Reference]) -> Value {
    let each = references.iter().map(|r| {
        json!({
            "device": r.device.raw(),
            "uncached_us": r.uncached_us,
            "spread": r.spread,
            "measurements": r.measurements,
        })
    });
    Value::Array(each.collect())
}

fn sampling(spec: &SpecDraft) -> Value {
    json!({
        "steps": spec.sampling.steps,
        "guidance_scale": spec.sampling.guidance_scale,
        "height": spec.sampling.height,
        "width": spec.sampling.width,
        "negative_prompt": spec.sampling.negative_prompt,
        "grids": spec.sampling.grids.iter().map(|grid| json!({
            "steps": grid.steps,
            "solver_order": grid.solver_order,
            "timesteps": grid.timesteps,
            "sigmas": grid.sigmas,
        })).collect::<Vec<_>>(),
    })
}

/// A specification, without the texts of the prompts and the imported schedules.
pub fn spec(spec: &SpecDraft) -> Value {
    json!({
        "model": { "name": spec.model.name, "fingerprint": spec.model.fingerprint },
        "sampling": sampling(spec),
        "allow_forecast": spec.forecast,
        "allow_guidance_decisions": spec.guidance_decisions,
        "prompts": spec.prompts.len(),
        "measurement": {
            "batch": spec.plan.batch,
            "warmup": spec.plan.warmup,
            "repeats": spec.plan.repeats,
            "thumbnails": spec.plan.thumbnails,
        },
        "objectives": spec.objectives.iter().map(|o| json!({
            "metric": o.metric,
            "direction": direction(o.direction),
            "bound": o.bound,
        })).collect::<Vec<_>>(),
        "budget": budget(&spec.budget),
        "algorithm": {
            "strategy": match spec.algorithm.strategy {
                Strategy::SteadyState => "steady_state",
                Strategy::Nsga2 => "nsga2",
                Strategy::Imported => "imported",
            },
            "population": spec.algorithm.population,
            "crossover": spec.algorithm.crossover,
            "seeds": spec.algorithm.seeds,
            "remeasure": spec.algorithm.remeasure,
            "rungs": spec.algorithm.rungs,
        },
        "seed": spec.seed,
        "labels": spec.labels,
        "placement": {
            "priority": spec.placement.priority,
            "weight": spec.placement.weight,
            "device": spec.placement.device,
            "memory_bytes": spec.placement.memory_bytes,
            "labels": spec.placement.labels,
        },
        "imported": spec.imported.len(),
    })
}

fn budget(budget: &Budget) -> Value {
    let seconds = |t: Option<std::time::Duration>| t.map(|t| t.as_secs_f64());
    json!({
        "evaluations": budget.evaluations,
        "wall_time_seconds": seconds(budget.wall_time),
        "device_time_seconds": seconds(budget.device_time),
        "stagnation": budget.stagnation,
    })
}

/// The progress of a search.
pub fn progress(p: &Progress) -> Value {
    json!({
        "evaluations": p.evaluations,
        "spent": p.spent,
        "failed": p.failed,
        "running": p.running,
        "workers": p.workers,
        "front_size": p.front_size,
        "hypervolume": p.hypervolume,
        "seeds_hypervolume": p.seeds_hypervolume,
        "best_speedup": p.best_speedup,
        "seeds_best_speedup": p.seeds_best_speedup,
        "device_time_seconds": p.device_time.as_secs_f64(),
        "remaining_seconds": p.remaining.map(|d| d.as_secs_f64()),
    })
}

/// One change of a watched search.
pub fn watch_event(event: &WatchEvent) -> Value {
    match event {
        WatchEvent::State { state, progress, end_reason, evaluation, budget } => {
            json!({
                "event": "state",
                "state": SearchState::as_str(*state),
                "end_reason": end_reason.raw(),
                "progress": self::progress(progress),
                "evaluation": evaluation.as_ref().map(note),
                "budget": budget.as_ref().map(self::budget),
            })
        }
        WatchEvent::Reconnecting { problem, delay } => {
            json!({ "event": "reconnecting", "problem": problem, "delay_seconds": delay.as_secs_f64() })
        }
    }
}

fn note(n: &EvaluationNote) -> Value {
    json!({
        "candidate": n.candidate.0,
        "steps": n.steps,
        "schedule_id": n.schedule_id.raw(),
        "origin": n.origin.raw(),
        "measured": n.values,
        "worker_name": n.worker_name.raw(),
    })
}

/// An evaluation with its measurement, without the schedule itself.
pub fn evaluation(e: &Evaluation) -> Value {
    let metrics: Map<String, Value> = e
        .measurement
        .metrics
        .iter()
        .map(|m| (m.name.clone(), json!({ "values": m.values, "uncached_mean": m.baseline_mean })))
        .collect();
    json!({
        "candidate": e.candidate.0,
        "schedule_id": e.schedule.id().to_string(),
        "steps": e.schedule.steps(),
        "speedup": e.speedup(),
        "estimated_latency_ratio": e.estimate.map(|l| json!({
            "value": l.value,
            "deviation": l.deviation,
            "measurements": l.measurements,
        })),
        "estimated_latency_us": e.estimated_latency_us,
        "measured": e.values,
        "measured_latency_us": e.measurement.latency_us,
        "measured_uncached_latency_us": e.measurement.baseline_latency_us,
        "metrics": metrics,
        "macs": e.measurement.macs,
        "uncached_macs": e.measurement.baseline_macs,
        "peak_cache_bytes": e.measurement.peak_cache_bytes,
        "device_time_seconds": e.measurement.device_time.as_secs_f64(),
        "operator": e.operator.raw(),
        "seed_family": e.seed_family.raw(),
        "imported": e.imported.iter().map(Foreign::raw).collect::<Vec<_>>(),
        "parents": e.parents.iter().map(|p| p.0).collect::<Vec<_>>(),
        "worker_id": e.worker_id.raw(),
        "worker_name": e.worker_name.raw(),
        "device": e.device.raw(),
        "start_time": time(e.start_time),
        "end_time": time(e.end_time),
        "attempt": e.attempt,
        "excluded": e.excluded,
    })
}

fn with_schedule(search: &Search, e: &Evaluation) -> Value {
    let mut value = evaluation(e);
    // A schedule with a sampling grid of its own carries what it was made for, also when it is copied out of this file.
    let grid = search.spec.sampling.grid(e.schedule.steps());
    let about = grid.map(|_| json!({ "made_for": made_for(search) }));
    // The writer formats for people; parsed, it is the same JSON.
    value["schedule"] = serde_json::from_str(&formats::write_own(&e.schedule, about)).unwrap_or(Value::Null);
    value
}

/// A front with its schedules.
pub fn front(search: &Search, front: &Front) -> Value {
    json!({
        "search_id": search.id.as_str(),
        "made_for": made_for(search),
        "quality_metric": search.quality_metric(),
        "reference_latencies": references(&front.references),
        "hypervolume": front.hypervolume,
        "seeds_hypervolume": search.progress.seeds_hypervolume,
        "baseline": front.baseline.as_ref().map(evaluation),
        "evaluations": front.evaluations.iter().map(|e| {
            let mut value = with_schedule(search, e);
            value["within_bounds"] = search.spec.objectives.iter().all(|o| e.keeps(o)).into();
            value
        }).collect::<Vec<_>>(),
    })
}

/// What a search's schedules were made for. With other weights, steps, guidance or size, their figures do not hold.
fn made_for(search: &Search) -> Value {
    json!({
        "search_id": search.id.as_str(),
        "model": search.spec.model.name,
        "fingerprint": search.model.as_ref().map(|model| model.fingerprint.raw()),
        "sampling": sampling(&search.spec),
    })
}

/// What a schedule file says beside the schedule: its measurement, and what it was made for.
pub fn about(search: &Search, e: &Evaluation) -> Value {
    let mut about = evaluation(e);
    about["made_for"] = made_for(search);
    about
}

/// The answer of `best`.
pub fn best(search: &Search, b: &Best) -> Value {
    json!({
        "made_for": made_for(search),
        "speedup": b.speedup,
        "quality_metric": b.quality_metric,
        "quality_ratio": b.quality_ratio,
        "reference_latencies": references(&b.references),
        "evaluation": with_schedule(search, &b.evaluation),
        "baseline": b.baseline.as_ref().map(evaluation),
    })
}

/// A worker.
pub fn worker(w: &Worker) -> Value {
    json!({
        "worker_id": w.id.as_str(),
        "name": w.name.raw(),
        "state": w.state.as_str(),
        "device": w.device.raw(),
        "software": w.software.raw(),
        "model": w.model.raw(),
        "fingerprint": w.fingerprint.raw(),
        "register_time": time(w.register_time),
        "last_seen_time": time(w.last_seen_time),
        "completed": w.completed,
        "failed": w.failed,
        "quarantine": w.quarantine.raw(),
        "idle_reason": w.idle_reason.raw(),
        "metrics": w.metrics.iter().map(Foreign::raw).collect::<Vec<_>>(),
        "leases": w.leases.iter().map(|l| json!({
            "search_id": l.search_id.raw(),
            "candidate": l.candidate.0,
        })).collect::<Vec<_>>(),
    })
}
