//! When a call is retried: only if the coordinator did not accept it, or answers a repeat like the first call.

use std::time::Duration;

use evocache_net::back_off::{BackOff, Waits};

use super::error::ClientError;

/// How long to wait between attempts, and in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The waits between attempts.
    pub waits: BackOff,
    /// The sum of all waits of one call. Zero disables retries.
    pub total: Duration,
}

impl Default for RetryPolicy {
    /// Long enough for a restart of the coordinator.
    fn default() -> Self {
        let waits = BackOff { first: Duration::from_millis(100), most: Duration::from_secs(2) };
        Self { waits, total: Duration::from_secs(10) }
    }
}

impl RetryPolicy {
    pub(super) fn start(self) -> Retries {
        Retries { total: self.total, waited: Duration::ZERO, waits: self.waits.start() }
    }
}

/// The waits of one call.
#[derive(Debug)]
pub(super) struct Retries {
    total: Duration,
    waited: Duration,
    waits: Waits,
}

impl Retries {
    /// The wait after this error; `None` if a retry would not help or the total is used up.
    pub(super) fn next_delay(&mut self, error: &ClientError) -> Option<Duration> {
        if !error.is_transient() || self.waited >= self.total {
            return None;
        }
        let delay = self.waits.next_wait().max(error.retry_after().unwrap_or_default()).min(self.total);
        self.waited += delay;
        Some(delay)
    }

    /// Starts a new series, after a success.
    pub(super) fn reset(&mut self) {
        self.waits.reset();
        self.waited = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone() -> ClientError {
        ClientError::Unreachable { url: "http://x:1".into(), problem: "gone".into() }
    }

    #[test]
    fn waits_grow_and_end() {
        let waits = BackOff { first: Duration::from_millis(100), most: Duration::from_millis(400) };
        let mut retries = RetryPolicy { waits, total: Duration::from_secs(2) }.start();
        let delays: Vec<Duration> = std::iter::from_fn(|| retries.next_delay(&gone())).collect();
        assert!(delays.len() >= 5 && delays.len() < 30, "{delays:?}");
        assert!(delays[0] < delays[1] && delays[1] < delays[2], "{delays:?}");
        assert!(delays.iter().all(|&d| d <= Duration::from_millis(500)), "{delays:?}");
        retries.reset();
        assert!(retries.next_delay(&gone()).is_some());
    }

    #[test]
    fn an_error_that_would_come_again_is_not_retried() {
        let mut retries = RetryPolicy::default().start();
        let late = ClientError::Deadline { call: "GetSearch", url: String::new(), deadline: Duration::from_secs(1) };
        assert_eq!(retries.next_delay(&late), None);
    }
}
