//! The metrics: counters of the engine and the services, and gauges computed from the engine's state.
//!
//! Labels have few values: states, methods, codes. The figures of a single search are for the command line.

use std::time::Duration;

use super::exposition::Exposition;
use super::parts::{Guard, Parts};
use crate::engine::{Counts, Refusal, Search, State};
use crate::server::gate::Calls;
use evocache_domain::time::Timestamp;
use evocache_proto::domain::SearchState;

/// A search without a limit on evaluations counts as so many: more than any number of workers divides among themselves.
const UNLIMITED: f64 = 1e6;

/// The engine's state in a few numbers.
struct Gauges {
    workers: usize,
    silent: usize,
    gone: usize,
    draining: usize,
    quarantined: usize,
    leased: usize,
    pending: usize,
    wanted: u64,
    searches: Vec<(SearchState, usize)>,
}

/// Runs on the engine's thread: one pass over workers and searches, none over candidates.
fn look(state: &State, now: Timestamp, silence: Duration) -> Gauges {
    let searches = || state.searches.values();
    let silent = || state.workers.values().filter(|w| w.is_silent(now, silence));
    Gauges {
        workers: state.workers.len(),
        silent: silent().filter(|w| w.leases > 0).count(),
        gone: silent().filter(|w| w.leases == 0).count(),
        draining: state.workers.values().filter(|w| w.draining).count(),
        quarantined: state.workers.values().filter(|w| w.quarantine.is_some()).count(),
        leased: searches().map(|s| s.leased.len()).sum(),
        pending: searches().map(|s| s.pending.len()).sum(),
        wanted: searches().map(wanted).sum::<f64>().ceil() as u64,
        searches: SearchState::ALL.map(|state| (state, searches().filter(|s| s.phase == state).count())).to_vec(),
    }
}

/// Evaluations that a search may still ask for: none unless it is pending or running.
fn wanted(search: &Search) -> f64 {
    match (search.phase, search.spec.budget.evaluations) {
        (SearchState::Pending | SearchState::Running, Some(n)) => (n as f64 - search.spent()).max(0.0),
        (SearchState::Pending | SearchState::Running, None) => UNLIMITED,
        _ => 0.0,
    }
}

/// All metrics as text.
pub(super) async fn collect(parts: &Parts, ready: bool) -> Result<String, Refusal> {
    let Parts { engine, calls, silence, guard } = parts;
    let silence = *silence;
    let gauges = engine.query(move |state, now| look(state, now, silence)).await?;
    let mut text = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    text.family("evocache_build_info", "gauge", "The program that runs; always 1.");
    text.sample("evocache_build_info", &[("version", version)], 1);
    let help = "Whether the coordinator takes calls.";
    text.single("evocache_ready", "gauge", help, u8::from(ready));
    counters(&mut text, &engine.meters().read());
    states(&mut text, &gauges);
    rpcs(&mut text, calls);
    if let Some(guard) = guard {
        files(&mut text, guard);
        refusals(&mut text, guard);
    }
    Ok(text.finish())
}

fn counters(text: &mut Exposition, counts: &Counts) {
    text.family("evocache_evaluations_total", "counter", "Results sent by workers, by outcome.");
    for (outcome, n) in [("accepted", counts.accepted), ("refused", counts.refused), ("failed", counts.failed)] {
        text.sample("evocache_evaluations_total", &[("outcome", outcome)], n);
    }
    for (name, help, n) in [
        ("evocache_leases_granted_total", "Leases granted to workers.", counts.granted),
        ("evocache_leases_expired_total", "Leases that expired because their worker was silent.", counts.expired),
        ("evocache_leases_superseded_total", "Calls with a lease that another worker had by then.", counts.superseded),
    ] {
        text.single(name, "counter", help, n);
    }
    let help = "Calls waiting for the engine.";
    text.single("evocache_engine_queue_length", "gauge", help, counts.queued);
    let help = "1 after a failed flush, until the store is open again.";
    text.single("evocache_store_broken", "gauge", help, u8::from(counts.broken));
    if let Some(room) = counts.room {
        let help = "Free space on the disk of the store.";
        text.single("evocache_store_room_bytes", "gauge", help, room.left);
        let help = "Below this much room nothing new is begun; below a quarter of it nothing is written.";
        text.single("evocache_store_reserve_bytes", "gauge", help, room.reserve);
    }
    text.family("evocache_store_flush_duration_seconds", "histogram", "Duration of a flush to disk.");
    text.histogram("evocache_store_flush_duration_seconds", &[], &counts.flushes);
    text.single("evocache_engine_looks_total", "counter", "Questions answered from the engine's state.", counts.looks);
    text.family(
        "evocache_engine_busy_seconds",
        "histogram",
        "Duration of the engine's work on one batch of waiting calls.",
    );
    text.histogram("evocache_engine_busy_seconds", &[], &counts.busy);
}

fn states(text: &mut Exposition, gauges: &Gauges) {
    let help = "Registered workers: alive, silent with a lease, or gone without one.";
    text.family("evocache_workers", "gauge", help);
    let alive = gauges.workers - gauges.silent - gauges.gone;
    for (state, n) in [("alive", alive), ("silent", gauges.silent), ("gone", gauges.gone)] {
        text.sample("evocache_workers", &[("state", state)], n);
    }
    text.single(
        "evocache_workers_draining",
        "gauge",
        "Workers that finish their leases and get no more.",
        gauges.draining,
    );
    let help = "Workers whose results are excluded.";
    text.single("evocache_workers_quarantined", "gauge", help, gauges.quarantined);
    text.family("evocache_searches", "gauge", "Searches by state.");
    for (state, n) in &gauges.searches {
        text.sample("evocache_searches", &[("phase", state.as_str())], n);
    }
    let help = "Evaluations that pending and running searches may still ask for, by which to scale workers; a search without \
                a limit on evaluations counts as a million.";
    text.single("evocache_evaluations_wanted", "gauge", help, gauges.wanted);
    text.family("evocache_candidates_open", "gauge", "Candidates that wait for a worker or are leased to one.");
    for (state, n) in [("pending", gauges.pending), ("leased", gauges.leased)] {
        text.sample("evocache_candidates_open", &[("state", state)], n);
    }
}

fn rpcs(text: &mut Exposition, calls: &Calls) {
    let calls = calls.read();
    text.family("evocache_rpcs_total", "counter", "Answered gRPC calls.");
    for call in &calls {
        for (code, n) in &call.codes {
            let code = format!("{code:?}");
            text.sample("evocache_rpcs_total", &[("method", &call.method), ("code", &code)], n);
        }
    }
    let help = "Time until the answer of a gRPC call began; AcquireLease waits for work.";
    text.family("evocache_rpc_duration_seconds", "histogram", help);
    for call in &calls {
        text.histogram("evocache_rpc_duration_seconds", &[("method", &call.method)], &call.took);
    }
}

fn files(text: &mut Exposition, guard: &Guard) {
    let reloads = guard.reloader.read();
    let help = "Reloads of certificates or tokens that failed.";
    text.family("evocache_reload_failures_total", "counter", help);
    for r in &reloads {
        text.sample("evocache_reload_failures_total", &[("files", r.files)], r.failures);
    }
    let help = "Whether the last reload of the files succeeded; if 0, the previous files are in use.";
    text.family("evocache_reload_last_successful", "gauge", help);
    for r in &reloads {
        text.sample("evocache_reload_last_successful", &[("files", r.files)], u8::from(!r.last_failed));
    }
    let help = "Time of the last successful reload of the files.";
    text.family("evocache_reload_last_success_timestamp_seconds", "gauge", help);
    for r in &reloads {
        text.sample("evocache_reload_last_success_timestamp_seconds", &[("files", r.files)], r.succeeded_at);
    }
    let Some(expiry) = guard.reloader.expiry() else { return };
    let help = "Time at which the first certificate of a file expires.";
    text.family("evocache_tls_certificate_expiry_timestamp_seconds", "gauge", help);
    for (file, ends) in [("certificate", Some(expiry.certificate)), ("client_ca", expiry.client_ca)] {
        if let Some(ends) = ends {
            text.sample("evocache_tls_certificate_expiry_timestamp_seconds", &[("file", file)], ends);
        }
    }
}

fn refusals(text: &mut Exposition, guard: &Guard) {
    text.family("evocache_rpcs_limited_total", "counter", "gRPC calls refused by rate limits.");
    for (kind, excess, n) in guard.limiter.read() {
        text.sample("evocache_rpcs_limited_total", &[("kind", kind.as_str()), ("excess", excess)], n);
    }
    let (requests, answers) = guard.gate.held();
    text.family(
        "evocache_held_bytes",
        "gauge",
        "Bytes of requests that are not processed yet, and of answers that are not read yet.",
    );
    for (of, bytes) in [("requests", requests), ("answers", answers)] {
        text.sample("evocache_held_bytes", &[("of", of)], bytes);
    }
    let counts = guard.connections.read();
    text.single("evocache_connections", "gauge", "Open connections.", counts.open);
    for (name, help, n) in [
        ("evocache_connections_accepted_total", "Connections accepted.", counts.accepted),
        (
            "evocache_connections_refused_total",
            "Connections refused because all allowed ones are in use.",
            counts.refused,
        ),
        (
            "evocache_connections_closed_total",
            "Connections closed because they were silent, or idle when others needed room.",
            counts.closed,
        ),
        ("evocache_tls_handshakes_failed_total", "Connections whose TLS handshake failed.", counts.handshakes_failed),
    ] {
        text.single(name, "counter", help, n);
    }
}
