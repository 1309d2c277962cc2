//! What the engine counts for its operators. Counters only; gauges are asked of the state. Not stored: a restart
//! begins anew, as whoever reads counters expects.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::command::{Command, Refusal};
use crate::ports::{Fact, Room};
use evocache_domain::lease;

/// Upper limits of a histogram's buckets in microseconds: what a disk or a call takes, from good to hopeless.
const LIMITS: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000, 60_000_000];

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; LIMITS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets {
    /// Upper limit in seconds, and how many were at most that, ascending.
    pub limits: Vec<(f64, u64)>,
    /// How many in all.
    pub count: u64,
    /// Seconds of all together.
    pub sum: f64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = LIMITS.iter().position(|&limit| micros <= limit).and_then(|i| self.buckets.get(i)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Buckets {
        // Before the buckets: in a count that is read later a bucket could be larger than the whole.
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
    /// A store that cannot be flushed: nothing more is decided.
    pub(super) broken: AtomicBool,
    pub(super) flushes: Histogram,
    pub(super) busy: Histogram,
    pub(super) looks: AtomicU64,
    /// Bytes left for the store plus one; 0 while unknown.
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
    /// Results taken.
    pub accepted: u64,
    /// Results not taken.
    pub refused: u64,
    /// Leases given.
    pub granted: u64,
    /// Leases whose time was over.
    pub expired: u64,
    /// Calls with a lease that was another's by then.
    pub superseded: u64,
    /// Failures that workers reported.
    pub failed: u64,
    /// Calls that wait to be decided.
    pub queued: u64,
    /// Whether the store cannot be flushed.
    pub broken: bool,
    /// How long flushes took.
    pub flushes: Buckets,
    /// How long the engine worked, from what it found waiting to the answers.
    pub busy: Buckets,
    /// Questions that were answered from the state.
    pub looks: u64,
    /// The room that the store has, where that is known.
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

    /// The store's room was looked at.
    pub(super) fn room(&self, room: Option<Room>) {
        self.reserve.store(room.map_or(0, |room| room.reserve), Relaxed);
        self.room.store(room.map_or(0, |room| room.left.saturating_add(1)), Relaxed);
    }

    /// A command was carried out and made these facts.
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

    /// A command was refused.
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
    fn buckets_hold_all_that_is_below_them() {
        let histogram = Histogram::default();
        for millis in [0, 1, 2, 90_000] {
            histogram.record(Duration::from_millis(millis));
        }
        let read = histogram.read();
        assert_eq!((read.count, read.sum), (4, 90.003));
        assert_eq!(read.limits.first(), Some(&(0.0001, 1)));
        assert_eq!(read.limits.iter().find(|(limit, _)| *limit == 0.001), Some(&(0.001, 2)));
        assert_eq!(read.limits.last(), Some(&(60.0, 3)), "what is beyond the last limit is in the count only");
    }
}
