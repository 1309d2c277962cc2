//! Random draws of one worker: how long it takes, whether it fails, when it dies. Equal seeds give equal draws.

use std::time::Duration;

use super::plan::{Plan, TimeLaw};
use evocache_domain::rng::Stream;

/// The random stream of one worker.
pub(super) struct Dice(Stream);

impl Dice {
    /// The stream of the worker with this number.
    pub(super) fn new(plan: &Plan, number: u64) -> Self {
        Self(Stream::new(plan.seed, "simulate", number))
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.positive().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.0.unit()).cos()
    }

    /// Uniform in `(0, 1]`.
    fn positive(&mut self) -> f64 {
        1.0 - self.0.unit()
    }

    /// How long an evaluation takes.
    pub(super) fn time(&mut self, law: TimeLaw) -> Duration {
        if law.mean.is_zero() || law.deviation <= 0.0 {
            return law.mean;
        }
        let variance = (1.0 + law.deviation * law.deviation).ln();
        law.mean.mul_f64((variance.sqrt() * self.normal() - variance / 2.0).exp())
    }

    /// How long a worker lives; `None` means forever.
    pub(super) fn life(&mut self, deaths_per_second: f64) -> Option<Duration> {
        let seconds = -self.positive().ln() / deaths_per_second;
        (deaths_per_second > 0.0).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
    }

    /// Whether this evaluation fails.
    pub(super) fn fails(&mut self, rate: f64) -> bool {
        self.0.chance(rate)
    }

    /// A factor of 1 or slightly more that disturbs a timing.
    pub(super) fn disturbance(&mut self) -> f64 {
        1.0 + 0.01 * self.normal().abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_requested_mean_and_deviation() {
        let mut dice = Dice(Stream::new(1, "test", 0));
        let law = TimeLaw { mean: Duration::from_secs(2), deviation: 0.2 };
        let times: Vec<f64> = (0..20_000).map(|_| dice.time(law).as_secs_f64()).collect();
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let variance = times.iter().map(|t| (t - mean) * (t - mean)).sum::<f64>() / times.len() as f64;
        assert!((mean - 2.0).abs() < 0.02 && (variance.sqrt() / mean - 0.2).abs() < 0.01, "{mean} {variance}");
        let lives: f64 = (0..20_000).filter_map(|_| dice.life(0.5)).map(|l| l.as_secs_f64()).sum();
        assert!((lives / 20_000.0 - 2.0).abs() < 0.1);
        assert_eq!(dice.life(0.0), None);
        assert_eq!(dice.time(TimeLaw { mean: Duration::ZERO, deviation: 0.2 }), Duration::ZERO);
    }
}
