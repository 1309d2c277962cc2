//! What the server counts, and the page that Prometheus reads.
//!
//! **Invariant:** numbers, codes and ids only; no prompt, user or address.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the buckets of times, in seconds.
const SECONDS: [f64; 14] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 180.0, 600.0];

/// A histogram of times.
#[derive(Debug, Default)]
struct Times {
    buckets: [AtomicU64; SECONDS.len()],
    count: AtomicU64,
    microseconds: AtomicU64,
}

impl Times {
    fn add(&self, time: Duration) {
        let place = SECONDS.iter().position(|bound| time.as_secs_f64() <= *bound);
        if let Some(bucket) = place.and_then(|place| self.buckets.get(place)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn write(&self, into: &mut String, name: &str, help: &str) {
        let _ = writeln!(into, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut sum = 0;
        for (bound, bucket) in SECONDS.iter().zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            let _ = writeln!(into, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let count = self.count.load(Ordering::Relaxed);
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(into, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}");
    }
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// Requests for pictures by status and code.
    answers: Mutex<BTreeMap<(u16, &'static str), u64>>,
    answered: Times,
    batches: Times,
    pictures: AtomicU64,
    abandoned: AtomicU64,
    waiting: AtomicU64,
    running: AtomicU64,
    texts: AtomicU64,
    encoded: AtomicU64,
    embeddings: AtomicU64,
    connections: AtomicU64,
    refused_connections: AtomicU64,
}

impl Meters {
    /// A request was answered, or its client has gone.
    pub(super) fn answered(&self, status: u16, code: &'static str, took: Duration) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry((status, code)).or_default() += 1;
        if status == 200 {
            self.answered.add(took);
        }
    }

    /// A batch has ended.
    pub(super) fn batch(&self, pictures: usize, took: Duration) {
        self.pictures.fetch_add(pictures as u64, Ordering::Relaxed);
        self.batches.add(took);
    }

    /// Pictures wait.
    pub(super) fn queued(&self, waiting: usize) {
        self.waiting.store(waiting as u64, Ordering::Relaxed);
    }

    /// Pictures are drawn.
    pub(super) fn running(&self, pictures: usize) {
        self.running.store(pictures as u64, Ordering::Relaxed);
    }

    /// Pictures were not begun because their clients had gone.
    pub(super) fn left(&self, pictures: usize, waiting: usize) {
        self.abandoned.fetch_add(pictures as u64, Ordering::Relaxed);
        self.queued(waiting);
    }

    /// Pictures were not finished because their clients had gone.
    pub(super) fn cut_short(&self, pictures: usize) {
        self.abandoned.fetch_add(pictures as u64, Ordering::Relaxed);
    }

    /// Texts were needed, and some of them had to be encoded.
    pub(super) fn texts(&self, needed: usize, encoded: usize) {
        self.texts.fetch_add(needed as u64, Ordering::Relaxed);
        self.encoded.fetch_add(encoded as u64, Ordering::Relaxed);
    }

    /// Bytes of encoded texts.
    pub(super) fn embeddings(&self, bytes: u64) {
        self.embeddings.store(bytes, Ordering::Relaxed);
    }

    /// Connections that are open.
    pub(super) fn connections(&self, open: usize) {
        self.connections.store(open as u64, Ordering::Relaxed);
    }

    /// A connection was closed because there were too many.
    pub(super) fn refused_connection(&self) {
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// The page. `schedule` is the id of the schedule in use, or `none`.
    pub(super) fn page(&self, ready: bool, schedule: &str) -> String {
        let mut page = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        one("evocache_serve_ready", "gauge", "1 if pictures are drawn.", u64::from(ready));
        one("evocache_serve_queue_pictures", "gauge", "Pictures that wait.", read(&self.waiting));
        one("evocache_serve_running_pictures", "gauge", "Pictures that are drawn.", read(&self.running));
        one("evocache_serve_pictures_total", "counter", "Pictures of ended batches.", read(&self.pictures));
        one("evocache_serve_abandoned_total", "counter", "Pictures whose clients had gone.", read(&self.abandoned));
        one("evocache_serve_texts_total", "counter", "Texts that were needed encoded.", read(&self.texts));
        one("evocache_serve_texts_encoded_total", "counter", "Texts that were encoded.", read(&self.encoded));
        one("evocache_serve_embedding_bytes", "gauge", "Bytes of kept encoded texts.", read(&self.embeddings));
        one("evocache_serve_connections", "gauge", "Open connections.", read(&self.connections));
        let refused = read(&self.refused_connections);
        one("evocache_serve_connections_refused_total", "counter", "Connections beyond the limit.", refused);
        let _ = writeln!(page, "# HELP evocache_serve_schedule_info The schedule in use.");
        let _ = writeln!(page, "# TYPE evocache_serve_schedule_info gauge");
        let _ = writeln!(page, "evocache_serve_schedule_info{{schedule=\"{schedule}\"}} 1");
        let _ = writeln!(page, "# HELP evocache_serve_requests_total Requests for pictures by outcome.");
        let _ = writeln!(page, "# TYPE evocache_serve_requests_total counter");
        for ((status, code), count) in self.answers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(page, "evocache_serve_requests_total{{status=\"{status}\",code=\"{code}\"}} {count}");
        }
        self.answered.write(
            &mut page,
            "evocache_serve_request_seconds",
            "Time to the answer of requests that succeed.",
        );
        self.batches.write(&mut page, "evocache_serve_batch_seconds", "Time of the device for a batch.");
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_in_every_bucket_above_them() {
        let meters = Meters::default();
        meters.answered(200, "ok", Duration::from_millis(30));
        meters.answered(200, "ok", Duration::from_secs(3600));
        meters.answered(503, "queue_full", Duration::ZERO);
        let page = meters.page(true, "none");
        for line in [
            "evocache_serve_request_seconds_bucket{le=\"0.025\"} 0",
            "evocache_serve_request_seconds_bucket{le=\"0.05\"} 1",
            "evocache_serve_request_seconds_bucket{le=\"600\"} 1",
            "evocache_serve_request_seconds_bucket{le=\"+Inf\"} 2",
            "evocache_serve_request_seconds_sum 3600.03",
            "evocache_serve_requests_total{status=\"503\",code=\"queue_full\"} 1",
            "evocache_serve_ready 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}
