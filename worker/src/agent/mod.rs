//! The worker's side of the lease protocol: registers, leases candidates, has them evaluated and reports the results.
//!
//! - [`run`] drives one evaluator against one coordinator until it is drained, shut down or refused.
//! - `client`: calls with deadlines, the classification of their failures, and back-off.
//! - `lease`: everything between a lease and its report, including renewals.
//! - `thread`: the OS thread that owns the evaluator.
//!
//! Losing contact never ends an evaluation: only a shutdown or `cancel` in the answer to a renewal does. A finished
//! result is kept and sent again, under the same request id, until the coordinator gives a final answer.
//!
//! **Invariant:** knows nothing of candle, models and devices (they are behind [`Evaluate`]), or of signals and exit
//! codes (`cli` handles them). No state outlives the process: a restarted worker registers again, and its old lease
//! expires. A lease granted during a shutdown expires as well.

mod client;
mod error;
mod lease;
mod thread;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evocache_net::credentials::Credentials;
use evocache_net::telemetry::{self, Remote};
use evocache_proto::domain::Declaration;
use evocache_proto::pb;
use evocache_proto::text::plain;
use evocache_proto::wire::register_request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, Span, field, info, info_span, warn};

use client::{CallError, Coordinator, positive, request_id};
pub use error::AgentError;
pub use evocache_net::back_off::BackOff;
use lease::{Bench, Verdict};
use thread::EvaluatorThread;

use crate::evaluator::api::Evaluate;

/// Lifetime of an unrenewed lease if the coordinator does not specify one.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
/// Upper limit of the time that one AcquireLease call waits for work.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Minimum interval between two AcquireLease calls if the first returns no lease.
const IDLE_PAUSE: Duration = Duration::from_millis(200);

/// The coordinator's address, the credentials for it, and timeouts.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `https://host:port`, `http://host:port`, or `host:port`, which means `http://`.
    pub coordinator: String,
    /// Token and certificates for the coordinator.
    pub credentials: Credentials,
    /// How long [`run`] tries to register at first. If contact is lost later, it retries without a limit.
    pub connect_timeout: Duration,
    /// Waits between attempts.
    pub back_off: BackOff,
    /// How long a shutdown waits for the lease to be released, and then as long again for the evaluator.
    pub grace: Duration,
    /// [`run`] ends once the coordinator has had no work for this long. Without it, it waits for work without a limit.
    pub idle_timeout: Option<Duration>,
}

impl AgentConfig {
    /// The defaults: a minute to connect, back-off from 0.1 s to 5 s, 5 s of grace, and no end to waiting for work.
    pub fn new(coordinator: impl Into<String>) -> Self {
        Self {
            coordinator: coordinator.into(),
            credentials: Credentials::default(),
            connect_timeout: Duration::from_secs(60),
            back_off: BackOff::default(),
            grace: Duration::from_secs(5),
            idle_timeout: None,
        }
    }

    /// Checks URL and credentials without a connection, so that errors show before the model is loaded.
    ///
    /// # Errors
    ///
    /// [`AgentError::Address`].
    pub fn check(&self) -> Result<(), AgentError> {
        Ok(evocache_net::channel::endpoint(&self.coordinator, &self.credentials, client::CONNECT).map(|_| ())?)
    }
}

/// Why [`run`] returned without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The coordinator drained this worker.
    Drained,
    /// The coordinator had no work for the idle timeout.
    Idle,
    /// The shutdown future resolved.
    ShutDown,
}

/// The coordinator's answer to a registration.
struct Session {
    worker_id: String,
    ttl: Duration,
    wait: Duration,
}

/// Whether the lease loop goes on.
enum Flow {
    Continue,
    Leave(Ended),
}

struct Agent {
    config: AgentConfig,
    coordinator: Coordinator,
    declaration: Declaration,
    bench: Bench,
    /// Set when the answer to a renewal says that the worker is draining.
    draining: AtomicBool,
    /// The id of the last registration.
    registered: Option<String>,
    /// The last reason that the coordinator gave for having no work; each new one is logged once.
    idle_reason: String,
    /// Since when every answer has been that there is no work. Time without an answer does not count.
    idle_since: Option<Instant>,
    stop: Stop,
}

/// Becomes true when a shutdown is requested.
#[derive(Clone)]
struct Stop(watch::Receiver<bool>);

impl Stop {
    async fn requested(&self) {
        // An error means that the sender was dropped, so `run` is no longer polled: stop as well.
        let _ = self.0.clone().wait_for(|&stop| stop).await;
    }
}

/// Leases candidates and evaluates them until the coordinator drains the worker or `shutdown` resolves. A shutdown
/// cancels the running evaluation and releases its lease.
///
/// # Errors
///
/// If no coordinator answers within the connect timeout, if it refuses this worker for good, or if the evaluator's
/// thread cannot be started or ends. An evaluation that fails or panics is reported to the coordinator, not returned.
pub async fn run(
    config: AgentConfig,
    evaluator: Box<dyn Evaluate>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Ended, AgentError> {
    let declaration = evaluator.declaration();
    declaration.check()?;
    let coordinator = Coordinator::new(&config.coordinator, config.credentials.clone(), config.back_off)?;
    let bench = Bench::new(EvaluatorThread::start(evaluator)?, &declaration);
    let (ask, asked) = watch::channel(false);
    let agent = Agent {
        config,
        coordinator,
        declaration,
        bench,
        draining: AtomicBool::new(false),
        registered: None,
        idle_reason: String::new(),
        idle_since: None,
        stop: Stop(asked),
    };
    let mut work = pin!(agent.work());
    let mut shutdown = pin!(shutdown);
    tokio::select! {
        ended = &mut work => return ended,
        () = &mut shutdown => {}
    }
    // The receiver lives as long as `work` does.
    let _ = ask.send(true);
    work.await
}

impl Agent {
    async fn work(mut self) -> Result<Ended, AgentError> {
        let ended = self.lease_loop().await;
        self.bench.cancel();
        if !self.bench.thread.stop(self.config.grace).await {
            warn!("the evaluator is still busy after {:?}; exiting anyway", self.config.grace);
        }
        if ended.is_ok() {
            self.deregister().await;
        }
        ended
    }

    /// Deregisters this worker, in one attempt: if it fails, the coordinator lists the worker as gone after a while.
    async fn deregister(&self) {
        let Some(worker_id) = self.registered.clone() else { return };
        let request = pb::DeregisterWorkerRequest { request_id: request_id(), worker_id };
        match timeout(self.config.grace, self.coordinator.deregister(request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => info!("exiting without deregistering: {e}"),
            Err(_) => info!("exiting without deregistering: no answer within {:?}", self.config.grace),
        }
    }

    async fn lease_loop(&mut self) -> Result<Ended, AgentError> {
        let stop = self.stop.clone();
        let Some(session) = unless(&stop, self.first_registration()).await else { return Ok(Ended::ShutDown) };
        let mut session = session?;
        self.registered = Some(session.worker_id.clone());
        loop {
            let Some(answer) = unless(&stop, self.acquire(&mut session)).await else { return Ok(Ended::ShutDown) };
            let Some((answer, given)) = answer? else { return Ok(Ended::Idle) };
            if let Some(lease) = answer.lease
                && let Flow::Leave(ended) = self.serve(&session, lease, &given).await?
            {
                return Ok(ended);
            }
            if answer.draining || self.draining.load(Ordering::Relaxed) {
                info!("drained: the coordinator grants this worker no more leases");
                return Ok(Ended::Drained);
            }
        }
    }

    /// Registers within the connect timeout.
    async fn first_registration(&self) -> Result<Session, AgentError> {
        let patience = self.config.connect_timeout;
        match timeout(patience, self.register()).await {
            Ok(session) => session,
            Err(_) => Err(AgentError::Unreachable {
                url: self.coordinator.url().to_owned(),
                timeout: patience,
                last: self.coordinator.last_failure(),
            }),
        }
    }

    async fn register(&self) -> Result<Session, AgentError> {
        let request = register_request(request_id(), &self.declaration);
        let answer = self
            .coordinator
            .until_answered(|| self.coordinator.register(request.clone()))
            .await
            .map_err(|e| self.refused("RegisterWorker", &e))?;
        if answer.worker_id.is_empty() {
            let answer = "the answer has no worker_id".to_owned();
            return Err(self.refused("RegisterWorker", &CallError::Refused { invalid: true, answer }));
        }
        info!(worker = answer.worker_id, name = self.declaration.name, "registered with {}", self.coordinator.url());
        Ok(Session {
            worker_id: answer.worker_id,
            ttl: positive(answer.lease_ttl).unwrap_or(DEFAULT_TTL),
            wait: positive(answer.max_wait).unwrap_or_default().min(LONGEST_WAIT),
        })
    }

    /// Asks until the coordinator grants a lease or drains the worker, or, with `None`, until it had no work for too
    /// long. Registers again if the coordinator no longer knows the worker.
    async fn acquire(
        &mut self,
        session: &mut Session,
    ) -> Result<Option<(pb::AcquireLeaseResponse, Remote)>, AgentError> {
        let mut waits = self.coordinator.waits();
        loop {
            let asked = Instant::now();
            match self.coordinator.acquire(&session.worker_id, session.wait).await {
                Ok(answer) if answer.0.lease.is_some() || answer.0.draining => {
                    self.idle_reason.clear();
                    self.idle_since = None;
                    return Ok(Some(answer));
                }
                Ok((answer, _)) => {
                    let idle = self.idle_since.get_or_insert(asked).elapsed();
                    if self.config.idle_timeout.is_some_and(|most| idle >= most) {
                        info!("exiting: the coordinator has had no work for {idle:.0?}");
                        return Ok(None);
                    }
                    if !answer.idle_reason.is_empty() && answer.idle_reason != self.idle_reason {
                        info!("no work: {}", plain(&answer.idle_reason));
                        self.idle_reason = answer.idle_reason;
                    }
                    waits.reset();
                    sleep(IDLE_PAUSE.saturating_sub(asked.elapsed())).await;
                }
                Err(CallError::NotFound(answer)) => {
                    info!("the coordinator no longer knows this worker ({answer}); registering again");
                    sleep(waits.next_wait()).await;
                    *session = self.register().await?;
                    self.registered = Some(session.worker_id.clone());
                }
                Err(CallError::Unreachable(_) | CallError::Troubled(_)) => {
                    self.idle_since = None;
                    sleep(waits.next_wait()).await;
                }
                Err(refusal @ (CallError::Refused { .. } | CallError::Denied(_))) => {
                    return Err(self.refused("AcquireLease", &refusal));
                }
            }
        }
    }

    /// Evaluates the lease's candidate and reports the result, in a span of the trace that granted the lease.
    async fn serve(&mut self, session: &Session, lease: pb::Lease, given: &Remote) -> Result<Flow, AgentError> {
        let span = info_span!(
            target: telemetry::TARGET,
            "evaluation",
            search = lease.search_ref,
            candidate = lease.candidate,
            epoch = lease.epoch,
            attempt = lease.attempt,
            prompts = lease.prompts,
            outcome = field::Empty,
        );
        telemetry::adopt(&span, given);
        self.evaluate(session, lease).instrument(span).await
    }

    async fn evaluate(&mut self, session: &Session, lease: pb::Lease) -> Result<Flow, AgentError> {
        let stop = self.stop.clone();
        let held = lease::Held::new(&session.worker_id, &lease, session.ttl);
        let verdict = tokio::select! {
            // A finished result is reported even if a shutdown or a cancellation came at the same time.
            biased;
            verdict = self.bench.evaluate(&self.coordinator, &held, &lease) => verdict?,
            () = stop.requested() => Verdict::Stopped,
            () = held.keep_alive(&self.coordinator, &self.draining) => Verdict::Unwanted,
        };
        Span::current().record("outcome", verdict.name());
        match verdict {
            Verdict::Measured(measurement) => {
                self.patiently(&held, held.complete(&self.coordinator, &measurement)).await;
            }
            Verdict::Failed { reason, retryable } => {
                warn!(search = held.search(), candidate = held.candidate(), retryable, "evaluation failed: {reason}");
                self.patiently(&held, held.fail(&self.coordinator, &reason, retryable)).await;
            }
            Verdict::Untried => {
                self.patiently(&held, held.release(&self.coordinator)).await;
                unless(&stop, sleep(IDLE_PAUSE)).await;
            }
            Verdict::Unwanted => {
                info!(search = held.search(), candidate = held.candidate(), "the coordinator canceled the evaluation");
                self.bench.cancel();
                if let Some(idle) = unless(&stop, self.bench.idle()).await {
                    idle?;
                }
            }
            Verdict::Stopped => {
                self.bench.cancel();
                self.patiently(&held, held.release(&self.coordinator)).await;
                return Ok(Flow::Leave(Ended::ShutDown));
            }
        }
        Ok(Flow::Continue)
    }

    /// Waits until a report is delivered, but after a shutdown request for at most the grace period.
    async fn patiently(&self, held: &lease::Held, report: impl Future<Output = ()>) {
        let too_late = async {
            self.stop.requested().await;
            sleep(self.config.grace).await;
        };
        tokio::select! {
            biased;
            () = report => {}
            () = too_late => warn!(
                search = held.search(), candidate = held.candidate(),
                "shutting down before the coordinator answered ({}); the lease will expire",
                self.coordinator.last_failure(),
            ),
        }
    }

    fn refused(&self, call: &'static str, error: &CallError) -> AgentError {
        let (url, answer) = (self.coordinator.url().to_owned(), error.to_string());
        match error {
            CallError::Denied(_) => AgentError::Denied { url, call, answer },
            _ => AgentError::Refused { url, call, answer },
        }
    }
}

/// The future's output, or `None` if a shutdown is requested first.
async fn unless<T>(stop: &Stop, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.requested() => None,
        output = future => Some(output),
    }
}
