//! The lease machine: which worker may evaluate a candidate, until when, and what ends the lease.
//!
//! | from | event | guard | to |
//! |---|---|---|---|
//! | Pending | grant | now ≥ not_before, epoch above those of earlier grants | Leased(epoch, deadline = now + ttl) |
//! | Pending | complete | an earlier grant: same worker and epoch | Done: a late result is still a measurement |
//! | Leased | renew | same worker and epoch, now ≤ deadline | Leased(deadline = now + ttl) |
//! | Leased | expire | now > deadline | Pending(attempt + 1, back-off), or Failed when attempts are used up |
//! | Leased | complete | this or an earlier grant: same worker and epoch | Done |
//! | Leased | fail | same worker and epoch | retryable and attempts left: Pending(attempt + 1, back-off); else Failed |
//! | Leased | release | same worker and epoch | Pending at once, attempt not counted |
//! | Done | complete | same worker and epoch | unchanged: the answer is repeated |
//! | Pending, Leased | cancel | – | Cancelled |
//! | final | cancel | – | unchanged |
//! | Cancelled | reopen | – | Pending at once, attempts reset: the search continues |
//! | any other | reopen | – | unchanged |
//! | not Leased, or not yet due | expire | – | unchanged: the timer was late or early |
//! | any | any other | – | refused, see [`Refusal`] |
//!
//! Knows nothing of whether a worker is able, alive or draining (the engine checks before a grant) or of timers (the
//! engine sends [`Event::Expire`] when a deadline should have passed).

use std::time::Duration;

use evocache_proto::domain::{Epoch, WorkerId};

use super::time::Timestamp;

/// Grants remembered per candidate. Attempts bound the expiries but not the releases, which must not grow a record.
pub const MAX_GRANTS: usize = 16;

/// How long leases last and how often a candidate is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts before a candidate fails; at least 1.
    pub max_attempts: u32,
    /// Wait before the second attempt; doubles with every further attempt.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
    /// A lease ends this long after its grant or its last renewal.
    pub ttl: Duration,
}

impl RetryPolicy {
    /// How a coordinator retries candidates: five attempts, with waits from 1 s to 60 s between them.
    pub fn with_ttl(ttl: Duration) -> Self {
        Self { max_attempts: 5, base: Duration::from_secs(1), cap: Duration::from_secs(60), ttl }
    }

    /// The wait after attempt number `attempt` (from 1) has failed: `min(cap, base · 2^(attempt - 1))`.
    pub fn back_off(&self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

/// One grant of a candidate to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The fencing token: unique, and larger than those of earlier grants.
    pub epoch: Epoch,
    /// The worker that got it.
    pub worker: WorkerId,
}

impl Grant {
    fn is(&self, worker: &WorkerId, epoch: Epoch) -> bool {
        self.epoch == epoch && &self.worker == worker
    }
}

/// Why a candidate failed for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The lease of the last attempt expired.
    #[error("no result after {attempts} attempts; the last lease expired")]
    Expired {
        /// How many attempts were made.
        attempts: u32,
    },
    /// A worker reported a failure that is not retryable, or the last attempt failed.
    #[error("attempt {attempts} failed: {message}")]
    Reported {
        /// How many attempts were made.
        attempts: u32,
        /// The worker's message.
        message: String,
    },
}

/// The state of one candidate's evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waiting for a worker.
    Pending {
        /// The number of the next attempt, from 1.
        attempt: u32,
        /// The earliest time of the next grant.
        not_before: Timestamp,
        /// The last [`MAX_GRANTS`] grants, oldest first.
        grants: Vec<Grant>,
    },
    /// Held by a worker.
    Leased {
        /// The worker that holds the lease.
        worker: WorkerId,
        /// The lease's fencing token.
        epoch: Epoch,
        /// The lease expires after this time.
        deadline: Timestamp,
        /// The number of this attempt, from 1.
        attempt: u32,
        /// Earlier grants, oldest first.
        grants: Vec<Grant>,
    },
    /// A result was accepted.
    Done {
        /// The epoch of the grant whose result was accepted.
        epoch: Epoch,
        /// The worker that measured it.
        worker: WorkerId,
    },
    /// Failed for good.
    Failed {
        /// The reason of the last failure.
        reason: Failure,
    },
    /// The result is no longer needed.
    Cancelled {
        /// The last [`MAX_GRANTS`] grants, oldest first, because the candidate may be reopened.
        grants: Vec<Grant>,
    },
}

/// An event in a candidate's evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Lease the candidate to a worker.
    Grant {
        /// The worker that gets the lease.
        worker: WorkerId,
        /// An epoch that no grant of any candidate has had.
        epoch: Epoch,
    },
    /// The worker renews its lease: it is still evaluating.
    Renew {
        /// The worker that renews.
        worker: WorkerId,
        /// The epoch of its lease.
        epoch: Epoch,
    },
    /// The deadline may have passed.
    Expire,
    /// The worker reports a measurement.
    Complete {
        /// The worker that reports it.
        worker: WorkerId,
        /// The epoch of its lease.
        epoch: Epoch,
    },
    /// The worker reports a failure.
    Fail {
        /// The worker that reports it.
        worker: WorkerId,
        /// The epoch of its lease.
        epoch: Epoch,
        /// Whether another attempt may succeed.
        retryable: bool,
        /// The error, for display.
        message: String,
    },
    /// The worker returns the candidate unevaluated, because it stops or drains.
    Release {
        /// The worker that reports it.
        worker: WorkerId,
        /// The epoch of its lease.
        epoch: Epoch,
    },
    /// The result is no longer needed.
    Cancel,
    /// The result is needed after all: the search continues.
    Reopen,
}

/// The effect of an accepted event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The new state.
    To(State),
    /// The state does not change, and the earlier answer is repeated.
    Unchanged,
}

/// Why an event is refused. The state does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sender does not hold the lease, or no longer does.
    #[error("the lease was superseded")]
    Superseded,
    /// The lease expired before it was renewed. Its result is still accepted while the candidate is open.
    #[error("the lease expired at {deadline}")]
    Expired {
        /// When it expired.
        deadline: Timestamp,
    },
    /// The candidate is in back-off after a failed attempt.
    #[error("the candidate is in back-off until {not_before}")]
    TooEarly {
        /// The earliest time of the next grant.
        not_before: Timestamp,
    },
    /// Another lease on the candidate is in effect.
    #[error("the candidate is leased")]
    Held,
    /// The epoch is not above those of earlier grants.
    #[error("epoch {0} is not above those of earlier grants")]
    Epoch(Epoch),
    /// The candidate is done or has failed.
    #[error("the candidate is finished")]
    Finished,
    /// The candidate was cancelled; its worker should stop.
    #[error("the candidate was cancelled")]
    Cancelled,
}

impl State {
    /// The state of a new candidate, which may be granted at once.
    pub fn new() -> Self {
        Self::Pending { attempt: 1, not_before: Timestamp(0), grants: Vec::new() }
    }

    /// Whether a result is still accepted.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Pending { .. } | Self::Leased { .. } => true,
            Self::Done { .. } | Self::Failed { .. } | Self::Cancelled { .. } => false,
        }
    }

    /// The worker that holds the lease.
    pub fn holder(&self) -> Option<&WorkerId> {
        match self {
            Self::Leased { worker, .. } => Some(worker),
            Self::Pending { .. } | Self::Done { .. } | Self::Failed { .. } | Self::Cancelled { .. } => None,
        }
    }

    /// The epoch of the last remembered grant.
    pub fn last_epoch(&self) -> Option<Epoch> {
        match self {
            Self::Pending { grants, .. } | Self::Cancelled { grants } => grants.last().map(|grant| grant.epoch),
            Self::Leased { epoch, .. } | Self::Done { epoch, .. } => Some(*epoch),
            Self::Failed { .. } => None,
        }
    }

    /// The state after a restart of the coordinator: leases get a full TTL, because they could not be renewed
    /// meanwhile.
    #[must_use]
    pub fn after_restart(self, now: Timestamp, policy: &RetryPolicy) -> Self {
        match self {
            Self::Leased { worker, epoch, deadline: _, attempt, grants } => {
                Self::Leased { worker, epoch, deadline: now.plus(policy.ttl), attempt, grants }
            }
            other @ (Self::Pending { .. } | Self::Done { .. } | Self::Failed { .. } | Self::Cancelled { .. }) => other,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Applies `event` to `state` at `now`, by the table at the top of this file.
pub fn step(state: &State, event: &Event, now: Timestamp, policy: &RetryPolicy) -> Result<Transition, Refusal> {
    use Event as E;
    use State as S;
    match (state, event) {
        (S::Pending { attempt, not_before, grants }, E::Grant { worker, epoch }) => {
            if now < *not_before {
                return Err(Refusal::TooEarly { not_before: *not_before });
            }
            if grants.last().is_some_and(|grant| grant.epoch >= *epoch) {
                return Err(Refusal::Epoch(*epoch));
            }
            to(S::Leased {
                worker: worker.clone(),
                epoch: *epoch,
                deadline: now.plus(policy.ttl),
                attempt: *attempt,
                grants: grants.clone(),
            })
        }
        (S::Leased { .. }, E::Grant { .. }) => Err(Refusal::Held),
        (S::Done { .. } | S::Failed { .. }, E::Grant { .. }) => Err(Refusal::Finished),

        (S::Leased { worker, epoch, deadline, attempt, grants }, E::Renew { worker: by, epoch: of })
            if worker == by && fences(*epoch, *of) =>
        {
            if now > *deadline {
                return Err(Refusal::Expired { deadline: *deadline });
            }
            to(S::Leased {
                worker: worker.clone(),
                epoch: *epoch,
                deadline: now.plus(policy.ttl),
                attempt: *attempt,
                grants: grants.clone(),
            })
        }
        (S::Pending { .. } | S::Leased { .. } | S::Done { .. } | S::Failed { .. }, E::Renew { .. }) => {
            Err(Refusal::Superseded)
        }

        (S::Leased { worker, epoch, deadline, attempt, grants }, E::Expire) if now > *deadline => {
            let grants = remember(grants, worker, *epoch);
            to(retry(*attempt, now, policy, grants, Failure::Expired { attempts: *attempt }))
        }
        (S::Pending { .. } | S::Leased { .. } | S::Done { .. } | S::Failed { .. } | S::Cancelled { .. }, E::Expire) => {
            Ok(Transition::Unchanged)
        }

        (S::Pending { grants, .. }, E::Complete { worker, epoch })
            if grants.iter().any(|grant| grant.is(worker, *epoch)) =>
        {
            to(S::Done { epoch: *epoch, worker: worker.clone() })
        }
        (S::Leased { worker: holder, epoch: held, grants, .. }, E::Complete { worker, epoch })
            if (holder == worker && held == epoch) || grants.iter().any(|grant| grant.is(worker, *epoch)) =>
        {
            to(S::Done { epoch: *epoch, worker: worker.clone() })
        }
        (S::Done { epoch, worker }, E::Complete { worker: by, epoch: of }) if worker == by && fences(*epoch, *of) => {
            Ok(Transition::Unchanged)
        }
        (S::Pending { .. } | S::Leased { .. } | S::Done { .. } | S::Failed { .. }, E::Complete { .. }) => {
            Err(Refusal::Superseded)
        }

        (S::Leased { worker, epoch, attempt, grants, .. }, E::Fail { worker: by, epoch: of, retryable, message })
            if worker == by && fences(*epoch, *of) =>
        {
            let reason = Failure::Reported { attempts: *attempt, message: message.clone() };
            let grants = remember(grants, worker, *epoch);
            to(if *retryable { retry(*attempt, now, policy, grants, reason) } else { S::Failed { reason } })
        }
        (S::Pending { .. } | S::Leased { .. } | S::Done { .. } | S::Failed { .. }, E::Fail { .. }) => {
            Err(Refusal::Superseded)
        }

        (S::Leased { worker, epoch, attempt, grants, .. }, E::Release { worker: by, epoch: of })
            if worker == by && fences(*epoch, *of) =>
        {
            to(S::Pending { attempt: *attempt, not_before: now, grants: remember(grants, worker, *epoch) })
        }
        (S::Pending { .. } | S::Leased { .. } | S::Done { .. } | S::Failed { .. }, E::Release { .. }) => {
            Err(Refusal::Superseded)
        }

        (S::Pending { grants, .. }, E::Cancel) => to(S::Cancelled { grants: grants.clone() }),
        (S::Leased { worker, epoch, grants, .. }, E::Cancel) => {
            to(S::Cancelled { grants: remember(grants, worker, *epoch) })
        }
        (S::Done { .. } | S::Failed { .. } | S::Cancelled { .. }, E::Cancel) => Ok(Transition::Unchanged),

        (S::Cancelled { grants }, E::Reopen) => to(S::Pending { attempt: 1, not_before: now, grants: grants.clone() }),
        (S::Pending { .. } | S::Leased { .. } | S::Done { .. } | S::Failed { .. }, E::Reopen) => {
            Ok(Transition::Unchanged)
        }

        (
            S::Cancelled { .. },
            E::Grant { .. } | E::Renew { .. } | E::Complete { .. } | E::Fail { .. } | E::Release { .. },
        ) => Err(Refusal::Cancelled),
    }
}

/// Whether `of` is the lease's current epoch.
fn fences(now: Epoch, of: Epoch) -> bool {
    // The planted bug, which the chaos suite must find.
    cfg!(planted_bug) || now == of
}

fn to(state: State) -> Result<Transition, Refusal> {
    Ok(Transition::To(state))
}

/// Pending with a back-off, or failed for `reason` if this was the last attempt.
fn retry(attempt: u32, now: Timestamp, policy: &RetryPolicy, grants: Vec<Grant>, reason: Failure) -> State {
    if attempt >= policy.max_attempts {
        return State::Failed { reason };
    }
    State::Pending { attempt: attempt + 1, not_before: now.plus(policy.back_off(attempt)), grants }
}

fn remember(grants: &[Grant], worker: &WorkerId, epoch: Epoch) -> Vec<Grant> {
    let oldest = (grants.len() + 1).saturating_sub(MAX_GRANTS);
    grants[oldest..].iter().cloned().chain([Grant { epoch, worker: worker.clone() }]).collect()
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
