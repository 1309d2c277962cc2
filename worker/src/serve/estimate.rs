//! How long pictures take, from how long they took: the median of recent runs of the same kind, or, for a kind that has
//! not run yet, its multiply-accumulates at the recent speed.
//!
//! **Invariant:** reads no clock.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Runs that count.
const RECENT: usize = 9;
/// Kinds that are remembered; the one that was not used for longest is forgotten.
const KINDS: usize = 64;
/// After this time without a run, an estimate counts half, after twice the time a quarter, and so on: a device that was
/// slow for a while would otherwise be refused work for good, and so never be measured again.
const HALF_LIFE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Recent(VecDeque<f64>);

impl Recent {
    fn add(&mut self, value: f64) {
        if self.0.len() == RECENT {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    fn median(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }
}

/// What is known of the speed of a device.
#[derive(Debug)]
pub(super) struct Estimate<K> {
    /// Seconds per picture of each kind, the latest used last.
    kinds: Vec<(K, Recent)>,
    /// Seconds per multiply-accumulate.
    speed: Recent,
    learned: Option<Instant>,
}

impl<K: PartialEq + Clone> Estimate<K> {
    pub(super) fn new() -> Self {
        Self { kinds: Vec::new(), speed: Recent::default(), learned: None }
    }

    /// A run of `pictures` pictures of this kind, each of `macs` multiply-accumulates, has taken this long.
    pub(super) fn learn(&mut self, kind: &K, macs: u64, pictures: usize, took: Duration, now: Instant) {
        let each = took.as_secs_f64() / pictures.max(1) as f64;
        let mut recent = match self.kinds.iter().position(|(known, _)| known == kind) {
            Some(place) => self.kinds.remove(place).1,
            None => Recent::default(),
        };
        recent.add(each);
        self.kinds.push((kind.clone(), recent));
        if self.kinds.len() > KINDS {
            self.kinds.remove(0);
        }
        self.speed.add(each / macs.max(1) as f64);
        self.learned = Some(now);
    }

    /// The time of one picture; 0 as long as nothing is known.
    pub(super) fn picture(&self, kind: &K, macs: u64) -> Duration {
        let known = self.kinds.iter().find(|(known, _)| known == kind).and_then(|(_, recent)| recent.median());
        let seconds = known.or_else(|| Some(self.speed.median()? * macs as f64)).unwrap_or(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// How much an idle device's estimates still count, in (0, 1].
    pub(super) fn faded(&self, now: Instant) -> f64 {
        let idle = self.learned.map_or(Duration::ZERO, |learned| now.saturating_duration_since(learned));
        let lives = idle.as_secs_f64() / HALF_LIFE.as_secs_f64();
        0.5f64.powi(lives.min(60.0) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_run_changes_nothing_and_a_new_kind_is_told_by_its_work() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut estimate = Estimate::new();
        assert_eq!(estimate.picture(&'a', 10), Duration::ZERO);
        for took in [2, 2, 200, 2, 2] {
            estimate.learn(&'a', 10, 2, second * took, start);
        }
        assert_eq!(estimate.picture(&'a', 10), second);
        assert_eq!(estimate.picture(&'b', 40).as_millis(), 4000);
        for kind in 0..2 * KINDS {
            estimate.learn(&char::from_u32(1000 + kind as u32).unwrap(), 10, 1, second, start);
        }
        assert_eq!(estimate.kinds.len(), KINDS);
    }

    #[test]
    fn what_nobody_confirms_fades() {
        let start = Instant::now();
        let mut estimate = Estimate::new();
        estimate.learn(&'a', 1, 1, Duration::from_secs(8), start);
        assert_eq!(estimate.faded(start + HALF_LIFE / 2), 1.0);
        assert_eq!(estimate.faded(start + HALF_LIFE * 3), 0.125);
        assert!(estimate.faded(start + HALF_LIFE * 100_000) > 0.0);
    }
}
