//! From a lease to its report: checks the candidate, prepares the search, evaluates the schedule and renews the lease
//! meanwhile.
//!
//! Does not acquire leases or decide when to exit: that is `mod.rs`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evocache_net::telemetry;
use evocache_proto::domain::{Declaration, Layout, Measurement, Schedule};
use evocache_proto::{pb, wire};
use tokio::time::sleep;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::AgentError;
use super::client::{CallError, Coordinator, positive, request_id};
use super::thread::{EvaluatorThread, Panicked};
use crate::evaluator::api::{CancelToken, EvaluateError, Task};

/// The coordinator's limit for the reason of a failure, in bytes.
const REASON_BYTES: usize = 4096;

/// The outcome of a lease.
#[derive(Debug)]
pub(super) enum Verdict {
    Measured(Measurement),
    Failed {
        reason: String,
        retryable: bool,
    },
    /// The evaluation could not start, for a reason unrelated to the candidate: release the lease.
    Untried,
    /// The coordinator canceled the evaluation and wants no report.
    Unwanted,
    /// A shutdown was requested.
    Stopped,
}

impl Verdict {
    /// The value of the span attribute `outcome`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Failed { .. } => "failed",
            Self::Untried => "untried",
            Self::Unwanted => "unwanted",
            Self::Stopped => "stopped",
        }
    }

    fn failed(reason: impl std::fmt::Display) -> Self {
        Self::Failed { reason: reason.to_string(), retryable: false }
    }

    fn panicked(Panicked(message): Panicked) -> Self {
        Self::failed(format!("the evaluator panicked: {message}"))
    }

    fn error(error: EvaluateError) -> Self {
        let hint = error.hint().map_or_else(String::new, |hint| format!("; hint: {hint}"));
        Self::Failed { retryable: error.is_retryable(), reason: format!("{error}{hint}") }
    }
}

/// The evaluator and the search that it is prepared for.
pub(super) struct Bench {
    pub(super) thread: EvaluatorThread,
    layout: Arc<Layout>,
    forecast: bool,
    guidance_decisions: bool,
    /// The `search_ref` of the search whose calibration the evaluator has.
    prepared: Option<String>,
    /// Cancels the evaluator's current job.
    cancel: CancelToken,
}

impl Bench {
    pub(super) fn new(thread: EvaluatorThread, declaration: &Declaration) -> Self {
        Self {
            thread,
            layout: Arc::new(declaration.layout.clone()),
            forecast: declaration.forecast,
            guidance_decisions: declaration.guidance_decisions,
            prepared: None,
            cancel: CancelToken::new(),
        }
    }

    /// Cancels the evaluator's current job.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits until the evaluator is idle.
    pub(super) async fn idle(&self) -> Result<(), AgentError> {
        self.thread.ask(|_| ()).await.map(|_| ())
    }

    /// Evaluates the candidate. If the future is dropped, the evaluator goes on until it is [canceled](Self::cancel).
    pub(super) async fn evaluate(
        &mut self,
        coordinator: &Coordinator,
        held: &Held,
        lease: &pb::Lease,
    ) -> Result<Verdict, AgentError> {
        self.cancel = CancelToken::new();
        let schedule = match self.schedule(lease) {
            Ok(schedule) => schedule,
            Err(problem) => return Ok(Verdict::failed(problem)),
        };
        if self.prepared.as_deref() != Some(held.search())
            && let Some(verdict) = self.prepare(coordinator, held).await?
        {
            return Ok(verdict);
        }
        debug!(search = held.search(), candidate = held.candidate(), "evaluating {schedule:?}");
        let token = self.cancel.clone();
        // 0 prompts in a lease mean all prompts of the calibration.
        let (prompts, profile) = (NonZeroU32::new(lease.prompts), lease.profile);
        let measuring = info_span!(target: telemetry::TARGET, "measure");
        let evaluate = self.thread.ask(move |evaluator| {
            let task = Task { schedule: &schedule, prompts, profile };
            evaluator.evaluate(task, &token)
        });
        Ok(match evaluate.instrument(measuring).await? {
            Ok(Ok(measurement)) => Verdict::Measured(measurement),
            Ok(Err(error)) => Verdict::error(error),
            Err(panicked) => {
                self.prepared = None;
                Verdict::panicked(panicked)
            }
        })
    }

    /// The lease's schedule, or why this worker's model cannot run it.
    fn schedule(&self, lease: &pb::Lease) -> Result<Schedule, String> {
        let message = lease.schedule.as_ref().ok_or("the lease has no schedule")?;
        let schedule = wire::schedule(&self.layout, message).map_err(|e| {
            // The message does not carry the layout; the number of slots can only be inferred from its size.
            let bytes = message.decisions.len();
            let steps = (message.steps as usize).max(1);
            format!(
                "the schedule does not fit this worker's model: {e}; it has {bytes} bytes for {steps} steps, \
                 that is about {} slots, but the worker's layout {} has {} slots",
                bytes * 4 / steps,
                self.layout,
                self.layout.slots(),
            )
        })?;
        if schedule.forecasts() && !self.forecast {
            return Err("the schedule uses forecasts, which this worker does not support".into());
        }
        if schedule.decides_guidance() && !self.guidance_decisions {
            return Err("the schedule has guidance decisions, which this worker does not support".into());
        }
        Ok(schedule)
    }

    /// Fetches the search's calibration and prepares the evaluator with it. `None`: ready to evaluate.
    async fn prepare(&mut self, coordinator: &Coordinator, held: &Held) -> Result<Option<Verdict>, AgentError> {
        // From here on the old preparation is invalid, even if this one fails.
        self.prepared = None;
        let request =
            pb::GetCalibrationRequest { worker_id: held.worker_id.clone(), search_ref: held.search().to_owned() };
        let answer = coordinator.until_answered(|| coordinator.calibration(request.clone())).await;
        let calibration = match answer {
            Ok(answer) => match wire::calibration(&answer) {
                Ok(calibration) => calibration,
                Err(e) => return Ok(Some(Verdict::failed(format!("the search's calibration is invalid: {e}")))),
            },
            // The search or the worker was removed; the next AcquireLease shows which.
            Err(CallError::NotFound(answer)) => {
                warn!(search = held.search(), "calibration not found: {answer}");
                return Ok(Some(Verdict::Untried));
            }
            // Not the candidate's fault; the next AcquireLease fails the same way and ends the agent.
            Err(CallError::Denied(answer)) => {
                warn!(search = held.search(), "the coordinator denied access to the calibration: {answer}");
                return Ok(Some(Verdict::Untried));
            }
            Err(e) => return Ok(Some(Verdict::failed(format!("cannot get the search's calibration: {e}")))),
        };
        info!(search = held.search(), prompts = calibration.prompts.len(), "preparing");
        let token = self.cancel.clone();
        let preparing = info_span!(target: telemetry::TARGET, "prepare");
        let prepare = self.thread.ask(move |evaluator| evaluator.prepare(&calibration, &token));
        Ok(match prepare.instrument(preparing).await? {
            Ok(Ok(())) => {
                self.prepared = Some(held.search().to_owned());
                None
            }
            Ok(Err(error)) => Some(Verdict::error(error)),
            Err(panicked) => Some(Verdict::panicked(panicked)),
        })
    }
}

impl Drop for Bench {
    /// Cancels an evaluation that is still running when the agent is dropped.
    fn drop(&mut self) {
        self.cancel();
    }
}

/// A lease that this worker holds, with the calls that renew, report and release it.
pub(super) struct Held {
    worker_id: String,
    key: pb::LeaseRef,
    ttl: Duration,
}

impl Held {
    pub(super) fn new(worker_id: &str, lease: &pb::Lease, default_ttl: Duration) -> Self {
        Self { worker_id: worker_id.to_owned(), key: lease.into(), ttl: positive(lease.ttl).unwrap_or(default_ttl) }
    }

    pub(super) fn search(&self) -> &str {
        &self.key.search_ref
    }

    pub(super) fn candidate(&self) -> u64 {
        self.key.candidate
    }

    /// Renews the lease every third of its time to live. Returns only if the coordinator cancels the evaluation, not
    /// if it is unreachable or no longer knows the worker.
    pub(super) async fn keep_alive(&self, coordinator: &Coordinator, draining: &AtomicBool) {
        let mut third = self.ttl / 3;
        let mut wait = third;
        let mut waits = coordinator.waits();
        let mut forgotten = false;
        loop {
            sleep(wait).await;
            let request = pb::RenewLeasesRequest { worker_id: self.worker_id.clone(), leases: vec![self.key.clone()] };
            wait = match coordinator.renew(third, request).await {
                Ok(answer) => {
                    if answer.draining && !draining.swap(true, Ordering::Relaxed) {
                        info!("draining: this is the last evaluation");
                    }
                    match answer.leases.into_iter().find(|status| status.lease.as_ref() == Some(&self.key)) {
                        Some(status) if status.cancel => return,
                        Some(status) => third = positive(status.ttl).map_or(third, |ttl| ttl / 3),
                        None => {}
                    }
                    waits.reset();
                    third
                }
                Err(CallError::Unreachable(_) | CallError::Troubled(_)) => waits.next_wait().min(third),
                Err(e @ (CallError::NotFound(_) | CallError::Refused { .. } | CallError::Denied(_))) => {
                    if !forgotten {
                        warn!("cannot renew the lease: {e}; the evaluation goes on, its result may still be accepted");
                    }
                    forgotten = true;
                    third
                }
            };
        }
    }

    /// Reports the measurement, retrying until the coordinator answers.
    pub(super) async fn complete(&self, coordinator: &Coordinator, measurement: &Measurement) {
        let request = pb::CompleteEvaluationRequest {
            request_id: request_id(),
            worker_id: self.worker_id.clone(),
            lease: Some(self.key.clone()),
            measurement: Some(measurement.into()),
        };
        match coordinator.until_answered(|| coordinator.complete(request.clone())).await {
            Ok(_) => debug!(search = self.search(), candidate = self.candidate(), "result delivered"),
            // Another attempt would give the same result: report the failure, or the candidate is retried on expiry.
            Err(CallError::Refused { invalid: true, answer }) => {
                error!(
                    search = self.search(),
                    candidate = self.candidate(),
                    "the coordinator refused the result: {answer}"
                );
                self.fail(coordinator, &format!("the coordinator refused the result: {answer}"), false).await;
            }
            Err(e) => self.dropped("result", &e),
        }
    }

    /// Reports a failed evaluation, retrying until the coordinator answers.
    pub(super) async fn fail(&self, coordinator: &Coordinator, reason: &str, retryable: bool) {
        let request = pb::FailEvaluationRequest {
            request_id: request_id(),
            worker_id: self.worker_id.clone(),
            lease: Some(self.key.clone()),
            reason: reason[..reason.floor_char_boundary(REASON_BYTES)].to_owned(),
            retryable,
        };
        if let Err(e) = coordinator.until_answered(|| coordinator.fail(request.clone())).await {
            self.dropped("failure", &e);
        }
    }

    /// Releases the lease without a report, so that the attempt does not count.
    pub(super) async fn release(&self, coordinator: &Coordinator) {
        let request = pb::ReleaseLeaseRequest {
            request_id: request_id(),
            worker_id: self.worker_id.clone(),
            lease: Some(self.key.clone()),
        };
        match coordinator.until_answered(|| coordinator.release(request.clone())).await {
            Ok(_) => info!(search = self.search(), candidate = self.candidate(), "lease released"),
            Err(e) => self.dropped("release", &e),
        }
    }

    fn dropped(&self, what: &str, answer: &CallError) {
        warn!(search = self.search(), candidate = self.candidate(), "the coordinator refused the {what}: {answer}");
    }
}
