//! Waits between attempts: doubled up to a limit, with jitter, so that the callers of a coordinator that restarts do not
//! all come back at the same moment.

use std::time::Duration;

/// Jitter: each wait is multiplied by a factor in this range, fixed for one series of waits.
const JITTER: (f64, f64) = (0.75, 1.25);

/// The shape of a series of waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The first wait, before jitter. Each later one is twice as long.
    pub first: Duration,
    /// The longest wait, before jitter.
    pub most: Duration,
}

impl Default for BackOff {
    /// 100 ms to 5 s.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), most: Duration::from_secs(5) }
    }
}

impl BackOff {
    /// The wait after `taken` earlier ones, without jitter.
    pub fn wait(self, taken: u32) -> Duration {
        self.first.saturating_mul(1 << taken.min(20)).min(self.most)
    }

    /// A new series of waits with its own jitter.
    pub fn start(self) -> Waits {
        Waits { shape: self, taken: 0, jitter: jitter() }
    }
}

/// One series of waits.
#[derive(Debug, Clone)]
pub struct Waits {
    shape: BackOff,
    taken: u32,
    jitter: f64,
}

impl Waits {
    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.shape.wait(self.taken);
        self.taken += 1;
        wait.mul_f64(self.jitter)
    }

    /// After a success: the next wait is the first again.
    pub fn reset(&mut self) {
        self.taken = 0;
    }
}

#[expect(clippy::disallowed_methods, reason = "no result depends on how long a caller waits")]
fn jitter() -> f64 {
    let (low, high) = JITTER;
    let random = uuid::Uuid::new_v4().as_u128() as u16;
    low + (high - low) * f64::from(random) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_within_the_jitter() {
        let mut waits = BackOff::default().start();
        let taken: Vec<f64> = (0..8).map(|_| waits.next_wait().as_secs_f64() * 1e3).collect();
        for (taken, shape) in taken.iter().zip([100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 5000.0, 5000.0]) {
            assert!((JITTER.0 * shape - 1e-3..=JITTER.1 * shape + 1e-3).contains(taken), "{taken} for {shape}");
            assert!((taken / shape - waits.jitter).abs() < 1e-3, "one factor for the whole series");
        }
        waits.reset();
        assert!(waits.next_wait() <= Duration::from_millis(126));
    }

    #[test]
    fn a_thousand_callers_do_not_come_back_together() {
        let firsts: std::collections::BTreeSet<Duration> =
            (0..1000).map(|_| BackOff::default().start().next_wait()).collect();
        assert!(firsts.len() > 900, "{} different waits", firsts.len());
    }
}
