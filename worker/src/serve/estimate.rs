//! How long batches take, from how long they took: a part for the batch and a part for each picture, fitted to the recent
//! runs of the same kind by the medians of Theil and Sen, which no disturbed run moves. A kind that has not run yet is
//! told by its multiply-accumulates at the recent speed.
//!
//! Estimates err. How much longer than expected batches take, and how long an answer takes after its picture, is kept
//! beside them: whoever promises a time adds it.
//!
//! **Invariant:** reads no clock.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Runs of a kind that count.
const RECENT: usize = 12;
/// Errors and answers that count.
const ERRORS: usize = 64;
/// The share of the batches that are to end within the margin.
const SURE: f64 = 0.95;
/// Bounds of the margin: what is measured of few runs may be nothing, or out of proportion.
const MARGIN: (f64, f64) = (0.05, 0.5);
/// Kinds that are remembered; the one that was not used for longest is forgotten.
const KINDS: usize = 64;
/// After this time without a run, an estimate counts half, after twice the time a quarter, and so on: a device that was
/// slow for a while would otherwise be refused work for good, and so never be measured again.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// The time that batches of a kind take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Whatever its size.
    pub(super) batch: Duration,
    /// For each picture.
    pub(super) picture: Duration,
}

impl Cost {
    /// The time of a batch of so many pictures.
    pub(super) fn of(&self, pictures: usize) -> Duration {
        let count = u32::try_from(pictures).unwrap_or(u32::MAX);
        self.batch.saturating_add(self.picture.saturating_mul(count))
    }

    /// A part of it.
    pub(super) fn part(&self, share: f64) -> Self {
        let part = |time: Duration| Duration::try_from_secs_f64(time.as_secs_f64() * share).unwrap_or(Duration::MAX);
        Self { batch: part(self.batch), picture: part(self.picture) }
    }
}

/// What a promise adds to an estimate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Margin {
    /// A share of the estimated time.
    pub(super) share: f64,
    /// The time from the picture to the answer.
    pub(super) answer: Duration,
}

impl Margin {
    /// The time that can be promised if this much is expected.
    pub(super) fn promise(&self, expected: Duration) -> Duration {
        let stretched = expected.as_secs_f64() * (1.0 + self.share);
        Duration::try_from_secs_f64(stretched).unwrap_or(Duration::MAX).saturating_add(self.answer)
    }
}

/// The last values of something.
#[derive(Debug)]
struct Recent<T> {
    most: usize,
    values: VecDeque<T>,
}

impl<T: Copy> Recent<T> {
    fn new(most: usize) -> Self {
        Self { most, values: VecDeque::new() }
    }

    fn add(&mut self, value: T) {
        if self.values.len() == self.most {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }
}

impl Recent<f64> {
    fn quantile(&self, share: f64) -> Option<f64> {
        quantile(self.values.iter().copied().collect(), share)
    }
}

fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied()
}

/// Pictures and seconds of batches.
type Runs = Recent<(usize, f64)>;

impl Runs {
    fn cost(&self) -> Option<Cost> {
        let runs = &self.values;
        let mut slopes = Vec::new();
        for (place, (count, took)) in runs.iter().enumerate() {
            for (other, longer) in runs.iter().take(place).filter(|(other, _)| other != count) {
                slopes.push((longer - took) / (*other as f64 - *count as f64));
            }
        }
        // Of batches of one size nothing tells the two parts apart.
        let each = || quantile(runs.iter().map(|(count, took)| took / *count as f64).collect(), 0.5);
        let picture = quantile(slopes, 0.5).or_else(each)?.max(0.0);
        let batch = quantile(runs.iter().map(|(count, took)| took - picture * *count as f64).collect(), 0.5)?;
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        Some(Cost { batch: time(batch), picture: time(picture) })
    }
}

/// What is known of the speed of a device.
#[derive(Debug)]
pub(super) struct Estimate<K> {
    /// The runs of each kind, the latest used last.
    kinds: Vec<(K, Runs)>,
    /// Seconds per multiply-accumulate.
    speed: Recent<f64>,
    /// Seconds of batches, by the seconds that were expected.
    errors: Recent<f64>,
    /// Seconds from a picture to its answer.
    answers: Recent<f64>,
    learned: Option<Instant>,
}

impl<K: PartialEq + Clone> Estimate<K> {
    pub(super) fn new() -> Self {
        Self {
            kinds: Vec::new(),
            speed: Recent::new(RECENT),
            errors: Recent::new(ERRORS),
            answers: Recent::new(ERRORS),
            learned: None,
        }
    }

    /// A run of `pictures` pictures of this kind, each of `macs` multiply-accumulates, has taken this long.
    pub(super) fn learn(&mut self, kind: &K, macs: u64, pictures: usize, took: Duration, now: Instant) {
        let (pictures, took) = (pictures.max(1), took.as_secs_f64());
        let mut runs = match self.kinds.iter().position(|(known, _)| known == kind) {
            Some(place) => self.kinds.remove(place).1,
            None => Runs::new(RECENT),
        };
        if let Some(expected) = runs.cost().map(|cost| cost.of(pictures).as_secs_f64()).filter(|time| *time > 0.0) {
            self.errors.add(took / expected);
        }
        runs.add((pictures, took));
        self.kinds.push((kind.clone(), runs));
        if self.kinds.len() > KINDS {
            self.kinds.remove(0);
        }
        self.speed.add(took / pictures as f64 / macs.max(1) as f64);
        self.learned = Some(now);
    }

    /// An answer took so long after its last picture was drawn.
    pub(super) fn answered(&mut self, after: Duration) {
        self.answers.add(after.as_secs_f64());
    }

    /// The time of a batch; 0 as long as nothing is known.
    pub(super) fn cost(&self, kind: &K, macs: u64) -> Cost {
        let known = self.kinds.iter().find(|(known, _)| known == kind).and_then(|(_, runs)| runs.cost());
        known.unwrap_or_else(|| {
            let seconds = self.speed.quantile(0.5).unwrap_or(0.0) * macs as f64;
            let picture = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            Cost { batch: Duration::ZERO, picture }
        })
    }

    /// What a promise adds.
    pub(super) fn margin(&self) -> Margin {
        let share = self.errors.quantile(SURE).map_or(0.0, |ratio| ratio - 1.0).clamp(MARGIN.0, MARGIN.1);
        let answer = self.answers.quantile(SURE).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Margin { share, answer: answer.unwrap_or_default() }
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

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn one_disturbed_run_changes_nothing_and_a_new_kind_is_told_by_its_work() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut estimate = Estimate::new();
        assert_eq!(estimate.cost(&'a', 10), Cost::default());
        for took in [2, 2, 200, 2, 2] {
            estimate.learn(&'a', 10, 2, second * took, start);
        }
        assert_eq!(estimate.cost(&'a', 10).of(3), second * 3);
        assert_eq!(estimate.cost(&'b', 40).of(1).as_millis(), 4000);
        for kind in 0..2 * KINDS {
            estimate.learn(&char::from_u32(1000 + kind as u32).unwrap(), 10, 1, second, start);
        }
        assert_eq!(estimate.kinds.len(), KINDS);
    }

    #[test]
    fn what_a_batch_takes_whatever_its_size_is_told_from_its_pictures() {
        let start = Instant::now();
        let mut estimate = Estimate::new();
        let took = |pictures: u32| MILLISECOND * (100 + 20 * pictures);
        for pictures in [4, 4, 1, 4, 3, 4] {
            estimate.learn(&'a', 10, pictures as usize, took(pictures), start);
        }
        // A disturbed one, and one that another took the device from.
        estimate.learn(&'a', 10, 4, took(4) * 9, start);
        estimate.learn(&'a', 10, 1, took(1) * 2, start);
        let cost = estimate.cost(&'a', 10);
        for pictures in [1, 2, 4, 8] {
            assert!(cost.of(pictures).abs_diff(took(pictures as u32)) < MILLISECOND, "{pictures}: {cost:?}");
        }
    }

    #[test]
    fn a_promise_is_as_much_longer_than_the_estimate_as_batches_have_been() {
        let start = Instant::now();
        let mut estimate = Estimate::new();
        assert_eq!(estimate.margin(), Margin { share: 0.05, answer: Duration::ZERO });
        for round in 0..100 {
            let took = if round % 10 == 9 { 130 } else { 100 };
            estimate.learn(&'a', 10, 1, MILLISECOND * took, start);
            estimate.answered(MILLISECOND * 5);
        }
        let margin = estimate.margin();
        assert!((margin.share - 0.3).abs() < 0.01, "{margin:?}");
        assert_eq!(margin.promise(MILLISECOND * 1000).as_millis(), 1305);
        for _ in 0..ERRORS {
            estimate.learn(&'a', 10, 1, MILLISECOND * 100, start);
        }
        assert_eq!(estimate.margin().share, 0.05);
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
