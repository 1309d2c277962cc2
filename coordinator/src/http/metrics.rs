//! What is told: counters of engine and services as they are, gauges by a look at the state.
//!
//! Labels have few values: phases, methods, codes. A search's figures are the command line's to show.

use std::time::Duration;

use super::exposition::Exposition;
use super::{Guard, Parts};
use crate::api::Calls;
use crate::engine::{Counts, Refusal, State};
use crate::ports::Phase;
use evocache_domain::time::Timestamp;

/// Phases by the names that the command line has for them.
const PHASES: [(Phase, &str); 6] = [
    (Phase::Pending, "pending"),
    (Phase::Running, "running"),
    (Phase::Paused, "paused"),
    (Phase::Completed, "completed"),
    (Phase::Stopped, "stopped"),
    (Phase::Failed, "failed"),
];

/// The state in a few numbers.
struct Gauges {
    workers: usize,
    silent: usize,
    gone: usize,
    draining: usize,
    quarantined: usize,
    leased: usize,
    pending: usize,
    phases: Vec<(&'static str, usize)>,
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
        phases: PHASES.map(|(phase, name)| (name, searches().filter(|s| s.phase == phase).count())).to_vec(),
    }
}

/// Everything as text.
pub(super) async fn collect(parts: &Parts, ready: bool) -> Result<String, Refusal> {
    let Parts { engine, calls, silence, guard } = parts;
    let silence = *silence;
    let gauges = engine.query(move |state, now| look(state, now, silence)).await?;
    let mut text = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    text.family("evocache_build_info", "gauge", "The program that runs; always 1.");
    text.sample("evocache_build_info", &[("version", version)], 1);
    let help = "Whether the coordinator takes work.";
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
    text.family("evocache_evaluations_total", "counter", "Results that workers sent, by what became of them.");
    for (outcome, n) in [("accepted", counts.accepted), ("refused", counts.refused), ("failed", counts.failed)] {
        text.sample("evocache_evaluations_total", &[("outcome", outcome)], n);
    }
    for (name, help, n) in [
        ("evocache_leases_granted_total", "Leases given to workers.", counts.granted),
        ("evocache_leases_expired_total", "Leases whose worker was silent for too long.", counts.expired),
        ("evocache_leases_superseded_total", "Calls with a lease that was another's by then.", counts.superseded),
    ] {
        text.single(name, "counter", help, n);
    }
    let help = "Calls that wait for the engine.";
    text.single("evocache_engine_queue_length", "gauge", help, counts.queued);
    let help = "1 after a flush that failed: nothing is decided until the store is open again.";
    text.single("evocache_store_broken", "gauge", help, u8::from(counts.broken));
    if let Some(room) = counts.room {
        let help = "What can still be written to the store's disk.";
        text.single("evocache_store_room_bytes", "gauge", help, room.left);
        let help = "Below this nothing new is begun; below a quarter of it nothing is written.";
        text.single("evocache_store_reserve_bytes", "gauge", help, room.reserve);
    }
    text.family("evocache_store_flush_duration_seconds", "histogram", "How long a flush to disk took.");
    text.histogram("evocache_store_flush_duration_seconds", &[], &counts.flushes);
    text.single("evocache_engine_looks_total", "counter", "Questions answered from the state.", counts.looks);
    text.family("evocache_engine_busy_seconds", "histogram", "How long the engine worked at what it found waiting.");
    text.histogram("evocache_engine_busy_seconds", &[], &counts.busy);
}

fn states(text: &mut Exposition, gauges: &Gauges) {
    let help = "Registered workers: alive, silent with a lease, or gone without one.";
    text.family("evocache_workers", "gauge", help);
    let alive = gauges.workers - gauges.silent - gauges.gone;
    for (state, n) in [("alive", alive), ("silent", gauges.silent), ("gone", gauges.gone)] {
        text.sample("evocache_workers", &[("state", state)], n);
    }
    text.single("evocache_workers_draining", "gauge", "Workers that get no more work.", gauges.draining);
    let help = "Workers whose results are not believed.";
    text.single("evocache_workers_quarantined", "gauge", help, gauges.quarantined);
    text.family("evocache_searches", "gauge", "Searches by where they stand.");
    for &(phase, n) in &gauges.phases {
        text.sample("evocache_searches", &[("phase", phase)], n);
    }
    text.family("evocache_candidates_open", "gauge", "Candidates that wait for a worker, or that one has.");
    for (state, n) in [("pending", gauges.pending), ("leased", gauges.leased)] {
        text.sample("evocache_candidates_open", &[("state", state)], n);
    }
}

fn rpcs(text: &mut Exposition, calls: &Calls) {
    let calls = calls.read();
    text.family("evocache_rpcs_total", "counter", "gRPC calls that were answered.");
    for call in &calls {
        for (code, n) in &call.codes {
            let code = format!("{code:?}");
            text.sample("evocache_rpcs_total", &[("method", &call.method), ("code", &code)], n);
        }
    }
    let help = "How long gRPC calls took until the answer began; AcquireLease waits for work.";
    text.family("evocache_rpc_duration_seconds", "histogram", help);
    for call in &calls {
        text.histogram("evocache_rpc_duration_seconds", &[("method", &call.method)], &call.took);
    }
}

fn files(text: &mut Exposition, guard: &Guard) {
    let reloads = guard.reloader.read();
    let help = "How often certificates or tokens could not be used when they were read again.";
    text.family("evocache_reload_failures_total", "counter", help);
    for r in &reloads {
        text.sample("evocache_reload_failures_total", &[("files", r.files)], r.failures);
    }
    let help = "Whether the files were good when they were last read; 0: those of before are in use.";
    text.family("evocache_reload_last_successful", "gauge", help);
    for r in &reloads {
        text.sample("evocache_reload_last_successful", &[("files", r.files)], u8::from(!r.last_failed));
    }
    let help = "When the files were last read with success.";
    text.family("evocache_reload_last_success_timestamp_seconds", "gauge", help);
    for r in &reloads {
        text.sample("evocache_reload_last_success_timestamp_seconds", &[("files", r.files)], r.succeeded_at);
    }
    let Some(expiry) = guard.reloader.expiry() else { return };
    let help = "When the first certificate of a file in use ends.";
    text.family("evocache_tls_certificate_expiry_timestamp_seconds", "gauge", help);
    for (file, ends) in [("certificate", Some(expiry.certificate)), ("client_ca", expiry.client_ca)] {
        if let Some(ends) = ends {
            text.sample("evocache_tls_certificate_expiry_timestamp_seconds", &[("file", file)], ends);
        }
    }
}

fn refusals(text: &mut Exposition, guard: &Guard) {
    text.family("evocache_rpcs_limited_total", "counter", "gRPC calls refused because their caller makes too many.");
    for (kind, excess, n) in guard.limiter.read() {
        text.sample("evocache_rpcs_limited_total", &[("kind", kind.as_str()), ("excess", excess)], n);
    }
    let (requests, answers) = guard.gate.held();
    text.family("evocache_held_bytes", "gauge", "Bytes of requests not taken in yet, of answers that nobody has read.");
    for (of, bytes) in [("requests", requests), ("answers", answers)] {
        text.sample("evocache_held_bytes", &[("of", of)], bytes);
    }
    let counts = guard.connections.read();
    text.single("evocache_connections", "gauge", "Open connections.", counts.open);
    for (name, help, n) in [
        ("evocache_connections_accepted_total", "Connections accepted.", counts.accepted),
        ("evocache_connections_refused_total", "Connections refused: too many, all of them in use.", counts.refused),
        (
            "evocache_connections_closed_total",
            "Connections closed: silent, or idle when there were many.",
            counts.closed,
        ),
        (
            "evocache_tls_handshakes_failed_total",
            "Connections with which TLS did not come about.",
            counts.handshakes_failed,
        ),
    ] {
        text.single(name, "counter", help, n);
    }
}
