//! From a lease to its report: the candidate is checked, the search prepared, the schedule evaluated; meanwhile the
//! lease is renewed.
//!
//! Absent on purpose: asking for leases and deciding when to leave; both are the agent's loop.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evocache_proto::domain::{Layout, Measurement, Schedule};
use evocache_proto::{pb, telemetry, wire};
use tokio::time::sleep;
use tracing::{Instrument, debug, error, info, info_span, warn};

use super::AgentError;
use super::client::{CallError, Coordinator, positive, request_id};
use super::thread::{EvaluatorThread, Panicked};
use crate::evaluator::api::{CancelToken, EvaluateError, Task};

/// The coordinator keeps no more of a reason.
const REASON_BYTES: usize = 4096;

/// How a lease went.
#[derive(Debug)]
pub(super) enum Verdict {
    Measured(Measurement),
    Failed {
        reason: String,
        retryable: bool,
    },
    /// The candidate could not even be begun, for a reason that is not its own: give it back.
    Untried,
    /// The coordinator wants no report.
    Unwanted,
    /// A shutdown was asked for.
    Stopped,
}

impl Verdict {
    /// As a span's attribute.
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

/// The evaluator with what it is prepared for.
pub(super) struct Bench {
    pub(super) thread: EvaluatorThread,
    layout: Arc<Layout>,
    forecast: bool,
    /// The search whose calibration the evaluator has.
    prepared: Option<String>,
    /// Ends what the evaluator does now.
    cancel: CancelToken,
}

impl Bench {
    pub(super) fn new(thread: EvaluatorThread, layout: Arc<Layout>, forecast: bool) -> Self {
        Self { thread, layout, forecast, prepared: None, cancel: CancelToken::new() }
    }

    /// Asks the evaluator to end what it does.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits until the evaluator has nothing to do.
    pub(super) async fn idle(&self) -> Result<(), AgentError> {
        self.thread.ask(|_| ()).await.map(|_| ())
    }

    /// Evaluates the candidate. When the future is dropped, the evaluator goes on until it is [cancelled](Self::cancel).
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
        // 0 prompts in a lease are all of them.
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

    /// The lease's schedule, if this worker's model can run it.
    fn schedule(&self, lease: &pb::Lease) -> Result<Schedule, String> {
        let message = lease.schedule.as_ref().ok_or("the lease has no schedule")?;
        let schedule = wire::schedule(&self.layout, message).map_err(|e| {
            // A schedule does not carry its layout; how many slots its bytes can hold is all that it tells.
            let bytes = message.decisions.len();
            let steps = (message.steps as usize).max(1);
            format!(
                "the schedule does not fit this worker's model: {e}; it has {bytes} bytes for {steps} steps, \
                 that is about {} slots, and the worker's layout {} has {} slots",
                bytes * 4 / steps,
                self.layout,
                self.layout.slots(),
            )
        })?;
        if schedule.forecasts() && !self.forecast {
            return Err("the schedule forecasts, and this worker has declared that it cannot".into());
        }
        Ok(schedule)
    }

    /// Gets the search's calibration and hands it to the evaluator. `None`: ready to evaluate.
    async fn prepare(&mut self, coordinator: &Coordinator, held: &Held) -> Result<Option<Verdict>, AgentError> {
        // What the evaluator has is void from here on, whatever becomes of this attempt.
        self.prepared = None;
        let request =
            pb::GetCalibrationRequest { worker_id: held.worker_id.clone(), search_ref: held.search().to_owned() };
        let answer = coordinator.until_answered(|| coordinator.calibration(request.clone())).await;
        let calibration = match answer {
            Ok(answer) => match wire::calibration(&answer) {
                Ok(calibration) => calibration,
                Err(e) => return Ok(Some(Verdict::failed(format!("the search's calibration is not valid: {e}")))),
            },
            // The search or the worker is gone; the next AcquireLease tells which.
            Err(CallError::NotFound(answer)) => {
                warn!(search = held.search(), "there is no calibration: {answer}");
                return Ok(Some(Verdict::Untried));
            }
            // That is this worker's fault, not the candidate's; the next AcquireLease ends it.
            Err(CallError::Denied(answer)) => {
                warn!(search = held.search(), "the coordinator does not let this worker in: {answer}");
                return Ok(Some(Verdict::Untried));
            }
            Err(e) => return Ok(Some(Verdict::failed(format!("no calibration for the search: {e}")))),
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
    /// Whoever drops the agent in the middle of an evaluation does not want it to go on.
    fn drop(&mut self) {
        self.cancel();
    }
}

/// A lease that this worker holds, and the calls about it.
pub(super) struct Held {
    worker_id: String,
    key: pb::LeaseRef,
    ttl: Duration,
}

impl Held {
    pub(super) fn new(worker_id: &str, lease: &pb::Lease, default_ttl: Duration) -> Self {
        Self {
            worker_id: worker_id.to_owned(),
            key: pb::LeaseRef { search_ref: lease.search_ref.clone(), candidate: lease.candidate, epoch: lease.epoch },
            ttl: positive(lease.ttl).unwrap_or(default_ttl),
        }
    }

    pub(super) fn search(&self) -> &str {
        &self.key.search_ref
    }

    pub(super) fn candidate(&self) -> u64 {
        self.key.candidate
    }

    /// Renews the lease every third of its time to live. Returns when the coordinator wants no result any more; a
    /// coordinator that is away or has forgotten the worker does not say so.
    pub(super) async fn keep_alive(&self, coordinator: &Coordinator, draining: &AtomicBool) {
        let mut third = self.ttl / 3;
        let mut wait = third;
        let mut back_off = coordinator.back_off();
        let mut forgotten = false;
        loop {
            sleep(wait).await;
            let request = pb::RenewLeasesRequest { worker_id: self.worker_id.clone(), leases: vec![self.key.clone()] };
            wait = match coordinator.renew(third, request).await {
                Ok(answer) => {
                    if answer.draining && !draining.swap(true, Ordering::Relaxed) {
                        info!("draining: this evaluation is the last");
                    }
                    match answer.leases.into_iter().find(|status| status.lease.as_ref() == Some(&self.key)) {
                        Some(status) if status.cancel => return,
                        Some(status) => third = positive(status.ttl).map_or(third, |ttl| ttl / 3),
                        None => {}
                    }
                    back_off = coordinator.back_off();
                    third
                }
                Err(CallError::Unreachable(_) | CallError::Troubled(_)) => back_off.next().min(third),
                Err(e @ (CallError::NotFound(_) | CallError::Refused { .. } | CallError::Denied(_))) => {
                    if !forgotten {
                        warn!("the lease cannot be renewed: {e}; evaluating on, the result may still be welcome");
                    }
                    forgotten = true;
                    third
                }
            };
        }
    }

    /// Reports the result until the coordinator has answered.
    pub(super) async fn complete(&self, coordinator: &Coordinator, measurement: &Measurement) {
        let request = pb::CompleteEvaluationRequest {
            request_id: request_id(),
            worker_id: self.worker_id.clone(),
            lease: Some(self.key.clone()),
            measurement: Some(measurement.into()),
        };
        match coordinator.until_answered(|| coordinator.complete(request.clone())).await {
            Ok(_) => debug!(search = self.search(), candidate = self.candidate(), "result delivered"),
            // Nobody would measure anything else: without this the candidate would be tried again after its expiry.
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

    /// Reports that there is no result, until the coordinator has answered.
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

    /// Gives the candidate back untried.
    pub(super) async fn release(&self, coordinator: &Coordinator) {
        let request = pb::ReleaseLeaseRequest {
            request_id: request_id(),
            worker_id: self.worker_id.clone(),
            lease: Some(self.key.clone()),
        };
        match coordinator.until_answered(|| coordinator.release(request.clone())).await {
            Ok(_) => info!(search = self.search(), candidate = self.candidate(), "lease given back"),
            Err(e) => self.dropped("release", &e),
        }
    }

    fn dropped(&self, what: &str, answer: &CallError) {
        warn!(search = self.search(), candidate = self.candidate(), "the {what} is not wanted: {answer}");
    }
}
