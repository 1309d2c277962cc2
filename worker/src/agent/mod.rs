//! The worker's side of the lease protocol: registers, pulls candidates, has them evaluated and reports.
//!
//! - [`run`] drives one evaluator against one coordinator until it is drained, shut down or refused.
//! - `client`: calls with deadlines, what their failures mean, and back-off.
//! - `lease`: what happens between a lease and its report, renewals included.
//! - `thread`: the one OS thread that the evaluator lives on.
//!
//! Losing contact never ends an evaluation. Only the coordinator's word (`cancel` in the answer to a renewal) and a
//! shutdown do. A finished result is kept and sent again, under the same request id, until the coordinator answers
//! something final.
//!
//! Absent on purpose: candle, models and devices (an [`Evaluate`] has them), signals and exit codes (the command line
//! has them), and anything that outlives the process: a worker that restarts registers anew, and its lease expires.
//! A shutdown that comes while a lease is being granted leaves that lease to expire as well.

mod client;
mod lease;
mod thread;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evocache_proto::credentials::{CredentialError, Credentials};
use evocache_proto::domain::{Declaration, DeclarationError};
use evocache_proto::pb;
use evocache_proto::telemetry::{self, Remote};
use evocache_proto::text::plain;
use evocache_proto::wire::register_request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument, Span, field, info, info_span, warn};

pub use client::BackOff;
use client::{CallError, Coordinator, positive, request_id};
use lease::{Bench, Verdict};
use thread::EvaluatorThread;

use crate::evaluator::api::Evaluate;

/// When the coordinator says nothing: how long a lease lives without renewal.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
/// The longest time that one AcquireLease waits for work.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The shortest time between two AcquireLease calls that brought nothing.
const IDLE_PAUSE: Duration = Duration::from_millis(200);

/// Where the coordinator is and how patient the agent is with it.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// `https://host:port`, `http://host:port`, or only `host:port`, which is the latter.
    pub coordinator: String,
    /// What to show to it.
    pub credentials: Credentials,
    /// How long the first registration may take before [`run`] gives up. A contact lost later is sought for ever.
    pub connect_timeout: Duration,
    /// Waits between attempts.
    pub back_off: BackOff,
    /// How long a shutdown may take to give the lease back, and then to wait for the evaluator.
    pub grace: Duration,
}

impl AgentConfig {
    /// The defaults: a minute to connect, back-off from 0.1 s to 5 s, and 5 s of grace.
    pub fn new(coordinator: impl Into<String>) -> Self {
        Self {
            coordinator: coordinator.into(),
            credentials: Credentials::default(),
            connect_timeout: Duration::from_secs(60),
            back_off: BackOff::default(),
            grace: Duration::from_secs(5),
        }
    }

    /// Checks URL and credentials without calling anybody, for whoever has something costly to do before [`run`].
    ///
    /// # Errors
    ///
    /// [`AgentError::Url`], [`AgentError::Credentials`].
    pub fn check(&self) -> Result<(), AgentError> {
        client::endpoint(&self.coordinator, &self.credentials).map(|_| ())
    }
}

/// Why the agent ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The coordinator has no more work for this worker.
    Drained,
    /// The shutdown future was ready.
    ShutDown,
}

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The URL is none that can be called.
    #[error("coordinator url '{url}': {problem}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificates or token cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// Nobody answered in time, at the start.
    #[error("no coordinator answered at {url} within {} s: {last}", .timeout.as_secs_f64())]
    Unreachable {
        /// Where.
        url: String,
        /// For how long it was tried.
        timeout: Duration,
        /// The last failure.
        last: String,
    },
    /// The coordinator answered, and does not want this worker.
    #[error("the coordinator at {url} refused {call}: {answer}")]
    Refused {
        /// Where.
        url: String,
        /// Which call.
        call: &'static str,
        /// What it said.
        answer: String,
    },
    /// The coordinator does not let this worker in: no token, or none that it takes.
    #[error("the coordinator at {url} does not let this worker in ({call}): {answer}")]
    Denied {
        /// Where.
        url: String,
        /// Which call.
        call: &'static str,
        /// What it said.
        answer: String,
    },
    /// The evaluator declares something that no coordinator accepts.
    #[error("the evaluator's declaration is not valid: {0}")]
    Declaration(#[from] DeclarationError),
    /// The evaluator's thread could not be started.
    #[error("the evaluator's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The evaluator's thread has ended by itself.
    #[error("the evaluator's thread has ended unexpectedly")]
    EvaluatorGone,
}

/// What the coordinator said at registration.
struct Session {
    worker_id: String,
    ttl: Duration,
    wait: Duration,
}

/// Whether to ask for another lease.
enum Flow {
    Continue,
    Leave(Ended),
}

struct Agent {
    config: AgentConfig,
    coordinator: Coordinator,
    declaration: Declaration,
    bench: Bench,
    /// The coordinator said so in the answer to a renewal.
    draining: AtomicBool,
    /// The id of the last registration.
    registered: Option<String>,
    /// Why there was no work the last time.
    idle_reason: String,
    stop: Stop,
}

/// Tells when the agent is to end.
#[derive(Clone)]
struct Stop(watch::Receiver<bool>);

impl Stop {
    async fn requested(&self) {
        // An error means that whoever could ask is gone: nobody waits for more work either.
        let _ = self.0.clone().wait_for(|&stop| stop).await;
    }
}

/// Pulls candidates and evaluates them until the coordinator drains the worker or `shutdown` is ready. The latter
/// cancels the running evaluation and gives its lease back.
///
/// # Errors
///
/// When no coordinator answers within the connect timeout, when one refuses this worker for good, and when the
/// evaluator's thread cannot be started or is lost. An evaluation that fails or panics is reported, not returned.
pub async fn run(
    config: AgentConfig,
    evaluator: Box<dyn Evaluate>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Ended, AgentError> {
    let declaration = evaluator.declaration();
    declaration.check()?;
    let coordinator = Coordinator::new(&config.coordinator, config.credentials.clone(), config.back_off)?;
    let bench =
        Bench::new(EvaluatorThread::start(evaluator)?, Arc::new(declaration.layout.clone()), declaration.forecast);
    let (ask, asked) = watch::channel(false);
    let agent = Agent {
        config,
        coordinator,
        declaration,
        bench,
        draining: AtomicBool::new(false),
        registered: None,
        idle_reason: String::new(),
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
            warn!("the evaluator is still busy after {:?}; leaving without it", self.config.grace);
        }
        if ended.is_ok() {
            self.deregister().await;
        }
        ended
    }

    /// Tells the coordinator that this worker leaves. One try: without it the worker is listed as gone after a while.
    async fn deregister(&self) {
        let Some(worker_id) = self.registered.clone() else { return };
        let request = pb::DeregisterWorkerRequest { request_id: request_id(), worker_id };
        match timeout(self.config.grace, self.coordinator.deregister(request)).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => info!("left without deregistering: {e}"),
            Err(_) => info!("left without deregistering: no answer within {:?}", self.config.grace),
        }
    }

    async fn lease_loop(&mut self) -> Result<Ended, AgentError> {
        let stop = self.stop.clone();
        let Some(session) = unless(&stop, self.first_registration()).await else { return Ok(Ended::ShutDown) };
        let mut session = session?;
        self.registered = Some(session.worker_id.clone());
        loop {
            let Some(answer) = unless(&stop, self.acquire(&mut session)).await else { return Ok(Ended::ShutDown) };
            let (answer, given) = answer?;
            if let Some(lease) = answer.lease
                && let Flow::Leave(ended) = self.serve(&session, lease, &given).await?
            {
                return Ok(ended);
            }
            if answer.draining || self.draining.load(Ordering::Relaxed) {
                info!("drained: no more work for this worker");
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

    /// Asks until there is an answer that says something; registers again when the coordinator has forgotten us.
    async fn acquire(&mut self, session: &mut Session) -> Result<(pb::AcquireLeaseResponse, Remote), AgentError> {
        let mut back_off = self.config.back_off;
        loop {
            let asked = Instant::now();
            match self.coordinator.acquire(&session.worker_id, session.wait).await {
                Ok(answer) if answer.0.lease.is_some() || answer.0.draining => {
                    self.idle_reason.clear();
                    return Ok(answer);
                }
                Ok((answer, _)) => {
                    if !answer.idle_reason.is_empty() && answer.idle_reason != self.idle_reason {
                        info!("no work: {}", plain(&answer.idle_reason));
                        self.idle_reason = answer.idle_reason;
                    }
                    back_off = self.config.back_off;
                    sleep(IDLE_PAUSE.saturating_sub(asked.elapsed())).await;
                }
                Err(CallError::NotFound(answer)) => {
                    info!("the coordinator does not know this worker any more ({answer}); registering again");
                    sleep(back_off.next()).await;
                    *session = self.register().await?;
                    self.registered = Some(session.worker_id.clone());
                }
                Err(CallError::Unreachable(_) | CallError::Troubled(_)) => sleep(back_off.next()).await,
                Err(refusal @ (CallError::Refused { .. } | CallError::Denied(_))) => {
                    return Err(self.refused("AcquireLease", &refusal));
                }
            }
        }
    }

    /// Evaluates the lease's candidate and reports, in a span of the trace in which the lease was given.
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
            // A result that is there is reported, whatever else has happened.
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
                info!(search = held.search(), candidate = held.candidate(), "the coordinator wants no result any more");
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

    /// Waits for a report to be delivered; once a shutdown is asked for, only the grace longer.
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
                "shutting down without the coordinator's answer ({}); the lease will expire",
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

/// The future's output, or `None` once a shutdown is asked for.
async fn unless<T>(stop: &Stop, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = stop.requested() => None,
        output = future => Some(output),
    }
}
