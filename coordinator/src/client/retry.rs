//! When to try again: only what the coordinator has not taken, or will answer the same way again.

use std::time::Duration;

use super::{ClientError, new_request_id};

/// How long to wait between attempts, and for how long in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Before the second attempt; doubles after each.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// All waits together. Zero: never try again.
    pub total: Duration,
}

impl Default for RetryPolicy {
    /// Long enough for a coordinator to restart.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(2), total: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    pub(super) fn start(self) -> Backoff {
        Backoff { policy: self, attempt: 0, waited: Duration::ZERO, spread: spread() }
    }
}

/// The waits of one call.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: RetryPolicy,
    attempt: u32,
    waited: Duration,
    spread: f64,
}

impl Backoff {
    /// How long to wait after this error, or `None` when it is final.
    pub(super) fn next_delay(&mut self, error: &ClientError) -> Option<Duration> {
        if !error.is_transient() || self.waited >= self.policy.total {
            return None;
        }
        let doubled = self.policy.first.saturating_mul(1 << self.attempt.min(20));
        // Many clients that lose one coordinator must not come back at the same moment.
        let delay = doubled.min(self.policy.longest).mul_f64(self.spread);
        let delay = delay.max(error.retry_after().unwrap_or_default()).min(self.policy.total);
        self.attempt += 1;
        self.waited += delay;
        Some(delay)
    }

    /// After a success, the next failure starts anew.
    pub(super) fn reset(&mut self) {
        self.attempt = 0;
        self.waited = Duration::ZERO;
    }
}

/// A factor in 0.75 to 1.25, another one for every call.
fn spread() -> f64 {
    let id = new_request_id();
    let digit = id.as_str().bytes().next().map_or(8, |b| (b as char).to_digit(16).unwrap_or(8));
    0.75 + 0.5 * f64::from(digit) / 15.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> ClientError {
        ClientError::Unreachable { url: "http://x:1".into(), problem: "gone".into() }
    }

    #[test]
    fn waits_grow_and_end() {
        let policy = RetryPolicy {
            first: Duration::from_millis(100),
            longest: Duration::from_millis(400),
            total: Duration::from_secs(2),
        };
        let mut backoff = policy.start();
        let delays: Vec<Duration> = std::iter::from_fn(|| backoff.next_delay(&gone())).collect();
        assert!(delays.len() >= 5 && delays.len() < 30, "{delays:?}");
        assert!(delays[0] < delays[1] && delays[1] < delays[2], "{delays:?}");
        assert!(delays.iter().all(|&d| d <= Duration::from_millis(500)), "{delays:?}");
        backoff.reset();
        assert!(backoff.next_delay(&gone()).is_some());
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again() {
        let mut backoff = RetryPolicy::default().start();
        let late = ClientError::Deadline { call: "GetSearch", url: String::new(), deadline: Duration::from_secs(1) };
        assert_eq!(backoff.next_delay(&late), None);
    }
}
