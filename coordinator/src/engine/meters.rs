//! What the engine counts for its operators. Counters only; gauges are computed from the state. Not stored: counters start
//! at 0 after a restart, as their readers expect.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::command::Command;
use super::refusal::Refusal;
use crate::ports::{Fact, Room};
use evocache_domain::lease;

/// Upper limits of a histogram's buckets in microseconds, for durations of disk writes and calls.
const LIMITS: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000, 60_000_000];

/// Counts durations in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; LIMITS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets {
    /// Upper limit in seconds and how many durations were at most that, ascending.
    pub limits: Vec<(f64, u64)>,
    /// Number of durations.
    pub count: u64,
    /// Sum of all durations in seconds.
    pub sum: f64,
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = LIMITS.iter().position(|&limit| micros <= limit).and_then(|i| self.buckets.get(i)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// The histogram now.
    pub fn read(&self) -> Buckets {
        // Read before the buckets, and the count then raised to their sum, so that no bucket exceeds the count.
        let (count, sum) = (self.count.load(Relaxed), self.micros.load(Relaxed) as f64 / 1e6);
        let mut below = 0;
        let limits = LIMITS.iter().zip(&self.buckets).map(|(&limit, bucket)| {
            below += bucket.load(Relaxed);
            (limit as f64 / 1e6, below)
        });
        let limits: Vec<(f64, u64)> = limits.collect();
        Buckets { count: count.max(below), limits, sum }
    }
}

/// The engine's counters.
#[derive(Debug, Default)]
pub struct Meters {
    /// Calls that wait to be decided.
    pub(super) queued: AtomicI64,
    /// Whether the store has failed, so that nothing is decided.
    pub(super) broken: AtomicBool,
    pub(super) flushes: Histogram,
    pub(super) busy: Histogram,
    pub(super) looks: AtomicU64,
    /// Bytes left on the store's disk, plus one; 0 if unknown.
    room: AtomicU64,
    reserve: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    granted: AtomicU64,
    expired: AtomicU64,
    superseded: AtomicU64,
    failed: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// Results accepted.
    pub accepted: u64,
    /// Results refused.
    pub refused: u64,
    /// Leases granted.
    pub granted: u64,
    /// Leases that expired.
    pub expired: u64,
    /// Calls with a lease that was superseded.
    pub superseded: u64,
    /// Failures that workers reported.
    pub failed: u64,
    /// Calls that wait to be decided.
    pub queued: u64,
    /// Whether the store has failed, so that nothing is decided.
    pub broken: bool,
    /// How long flushes took.
    pub flushes: Buckets,
    /// How long the engine worked at a stretch, from taking calls off the queue to their answers.
    pub busy: Buckets,
    /// Questions answered from the state.
    pub looks: u64,
    /// The room on the store's disk, if known.
    pub room: Option<Room>,
}

impl Meters {
    /// The counters now.
    pub fn read(&self) -> Counts {
        Counts {
            accepted: self.accepted.load(Relaxed),
            refused: self.refused.load(Relaxed),
            granted: self.granted.load(Relaxed),
            expired: self.expired.load(Relaxed),
            superseded: self.superseded.load(Relaxed),
            failed: self.failed.load(Relaxed),
            queued: u64::try_from(self.queued.load(Relaxed)).unwrap_or(0),
            broken: self.broken.load(Relaxed),
            flushes: self.flushes.read(),
            busy: self.busy.read(),
            looks: self.looks.load(Relaxed),
            room: self.room.load(Relaxed).checked_sub(1).map(|left| Room { left, reserve: self.reserve.load(Relaxed) }),
        }
    }

    /// Notes the room on the store's disk.
    pub(super) fn room(&self, room: Option<Room>) {
        self.reserve.store(room.map_or(0, |room| room.reserve), Relaxed);
        self.room.store(room.map_or(0, |room| room.left.saturating_add(1)), Relaxed);
    }

    /// Counts the facts of a command that was carried out.
    pub(super) fn decided(&self, command: &Command, facts: &[Fact]) {
        for fact in facts {
            let counter = match (fact, command) {
                (Fact::Evaluated { .. }, _) => &self.accepted,
                (Fact::LeaseMoved { state: lease::State::Leased { .. }, .. }, Command::Acquire { .. }) => &self.granted,
                (
                    Fact::LeaseMoved { state: lease::State::Pending { .. } | lease::State::Failed { .. }, .. },
                    Command::Tick,
                ) => &self.expired,
                (
                    Fact::LeaseMoved { state: lease::State::Pending { .. } | lease::State::Failed { .. }, .. },
                    Command::Fail { .. },
                ) => &self.failed,
                _ => continue,
            };
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Counts a refused command.
    pub(super) fn refused(&self, command: &Command, refusal: &Refusal) {
        if matches!(command, Command::Complete { .. }) {
            self.refused.fetch_add(1, Relaxed);
        }
        if matches!(refusal, Refusal::Superseded(_)) {
            self.superseded.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_everything_up_to_their_limit() {
        let histogram = Histogram::default();
        for millis in [0, 1, 2, 90_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let read = histogram.read();
        assert_eq!((read.count, read.sum), (4, 90.003));
        assert_eq!(read.limits.first(), Some(&(0.0001, 1)));
        assert_eq!(read.limits.iter().find(|(limit, _)| *limit == 0.001), Some(&(0.001, 2)));
        assert_eq!(read.limits.last(), Some(&(60.0, 3)), "durations beyond the last limit are in the count only");
    }
}
