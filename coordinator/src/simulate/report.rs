//! The figures of a simulation: for planning a cluster, and for measuring the coordinator.

use std::time::Duration;

use serde_json::{Value, json};

use super::coordinator::Usage;
use super::crew::Tally;
use super::plan::Plan;
use crate::cli::kit::units::{show_bytes, show_percent};

/// The figures of a simulation.
#[derive(Debug)]
pub(super) struct Figures {
    tally: Tally,
    /// From the first call for a lease to the last accepted result.
    makespan: Duration,
    /// Share of the workers' time spent on accepted results.
    utilisation: f64,
    /// Worker-hours in total.
    gpu_hours: f64,
    cost: Option<f64>,
    per_second: f64,
    costs: Costs,
}

/// What the coordinator has used; `None` where that is unknown.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// CPU time and memory while the search ran.
    pub(super) usage: Option<Usage>,
    /// Size of its store in bytes.
    pub(super) store: Option<u64>,
    /// Number of idle workers, and the share of a core that they cost before the search.
    pub(super) idle: Option<(usize, f64)>,
    /// The restart, if there was one.
    pub(super) restarted: Option<Restarted>,
}

/// How long a killed coordinator took to come back.
#[derive(Debug)]
pub(super) struct Restarted {
    /// From the kill until it listened.
    pub(super) listening: Duration,
    /// From the kill to the first lease.
    pub(super) first_lease: Duration,
    /// Its largest resident memory until then, in bytes.
    pub(super) memory: Option<u64>,
}

/// Computes the figures from the counts.
pub(super) fn figures(plan: &Plan, mut tally: Tally, costs: Costs) -> Figures {
    let makespan = tally.first.zip(tally.last).map_or(Duration::ZERO, |(first, last)| last - first);
    let seconds = makespan.as_secs_f64().max(1e-9);
    let worked = seconds * f64::from(plan.workers);
    tally.acquire_us.sort_unstable();
    tally.complete_us.sort_unstable();
    let gpu_hours = worked / 3600.0;
    Figures {
        makespan,
        utilisation: tally.useful.as_secs_f64() / worked,
        gpu_hours,
        cost: plan.price.map(|price| price * gpu_hours),
        per_second: tally.completed as f64 / seconds,
        costs,
        tally,
    }
}

/// The smallest value that at least `share` of them do not exceed, in milliseconds.
fn quantile(sorted_us: &[u32], share: f64) -> Option<f64> {
    let rank = (share * sorted_us.len() as f64).ceil() as usize;
    sorted_us.get(rank.saturating_sub(1)).map(|&us| f64::from(us) / 1000.0)
}

/// The figures as JSON.
pub(super) fn view(plan: &Plan, f: &Figures) -> Value {
    let latency = |sorted: &[u32]| json!({ "calls": sorted.len(), "p50_ms": quantile(sorted, 0.5), "p99_ms": quantile(sorted, 0.99) });
    let evaluations = f.tally.completed.max(1) as f64;
    json!({
        "workers": plan.workers,
        "evaluations": f.tally.completed,
        "failed": f.tally.failed,
        "refused": f.tally.refused,
        "abandoned": f.tally.abandoned,
        "killed": f.tally.killed,
        "repeated_calls": f.tally.repeated,
        "makespan_seconds": f.makespan.as_secs_f64(),
        "utilisation": f.utilisation,
        "gpu_hours": f.gpu_hours,
        "cost": f.cost,
        "evaluations_per_second": f.per_second,
        "acquire_lease": latency(&f.tally.acquire_us),
        "complete_evaluation": latency(&f.tally.complete_us),
        "coordinator": f.costs.usage.map(|usage| json!({
            "cpu_seconds": usage.cpu,
            "cpu_ms_per_evaluation": 1000.0 * usage.cpu / evaluations,
            "peak_memory_bytes": usage.memory,
        })),
        "store_bytes": f.costs.store,
        "idle": f.costs.idle.map(|(workers, share)| json!({ "workers": workers, "cpu_share": share })),
        "restart": f.costs.restarted.as_ref().map(|r| json!({
            "listening_seconds": r.listening.as_secs_f64(),
            "first_lease_seconds": r.first_lease.as_secs_f64(),
            "peak_memory_bytes": r.memory,
        })),
    })
}

/// The figures as text.
pub(super) fn text(plan: &Plan, f: &Figures) -> String {
    let t = &f.tally;
    let mut lines = vec![format!("{:<20}{} on {} workers", "evaluations", t.completed, plan.workers)];
    let mut line = |name: &str, text: String| lines.push(format!("{name:<20}{text}"));
    let mishaps = [("failed", t.failed), ("killed", t.killed), ("refused", t.refused), ("abandoned", t.abandoned)];
    let mishaps: Vec<String> = mishaps.iter().filter(|m| m.1 > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if !mishaps.is_empty() {
        line("mishaps", mishaps.join(", "));
    }
    if t.repeated > 0 {
        line("repeated calls", t.repeated.to_string());
    }
    line("makespan", format!("{:.2} s", f.makespan.as_secs_f64()));
    line("throughput", format!("{:.1} evaluations per second", f.per_second));
    if !plan.time.mean.is_zero() {
        line("utilisation", show_percent(f.utilisation));
        line("GPU hours", format!("{:.3}", f.gpu_hours));
    }
    if let Some(cost) = f.cost {
        line("cost", format!("{cost:.2}"));
    }
    for (name, sorted) in [("AcquireLease", &t.acquire_us), ("CompleteEvaluation", &t.complete_us)] {
        if let Some((p50, p99)) = quantile(sorted, 0.5).zip(quantile(sorted, 0.99)) {
            line(name, format!("p50 {p50:.2} ms, p99 {p99:.2} ms"));
        }
    }
    if let Some((workers, share)) = f.costs.idle {
        line("idle workers", format!("{workers}, {} of a core before the search", show_percent(share)));
    }
    if let Some(usage) = f.costs.usage {
        let each = 1000.0 * usage.cpu / t.completed.max(1) as f64;
        let memory = show_bytes(usage.memory);
        line("coordinator", format!("{each:.2} ms of CPU per evaluation, {memory} of memory at most"));
    }
    if let Some(bytes) = f.costs.store {
        line("store", show_bytes(bytes));
    }
    if let Some(restarted) = &f.costs.restarted {
        let (lease, listening) = (restarted.first_lease.as_secs_f64(), restarted.listening.as_secs_f64());
        let memory =
            restarted.memory.map_or(String::new(), |bytes| format!(", {} of memory at most", show_bytes(bytes)));
        line("restart", format!("first lease after {lease:.2} s (listening after {listening:.2} s){memory}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_observed_values() {
        let sorted: Vec<u32> = (1..=100).map(|ms| ms * 1000).collect();
        assert_eq!(quantile(&sorted, 0.5), Some(50.0));
        assert_eq!(quantile(&sorted, 0.99), Some(99.0));
        assert_eq!(quantile(&sorted[..1], 0.99), Some(1.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
