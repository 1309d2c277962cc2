//! The simulated workers: tasks that share a few connections, register, acquire leases, wait, and report.

use std::sync::Arc;
use std::time::Duration;

use evocache_net::channel;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::dice::Dice;
use super::measure::measure;
use super::plan::Plan;
use crate::cli::kit::exit::Failure;
use crate::client::{ConnectOptions, is_unanswered, new_request_id};

/// Workers that share a connection. HTTP/2 servers allow a few hundred concurrent calls on one.
const SHARE: u32 = 100;
/// The wait before a failed call is repeated.
pub(super) const AGAIN: Duration = Duration::from_millis(200);
/// The most repeated calls of one worker.
const REPEATS: u64 = 100;
/// Longer than any simulation.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long AcquireLease may wait for a lease.
pub(super) const WAIT: prost_types::Duration = prost_types::Duration { seconds: 20, nanos: 0 };

/// Counts of one worker, or of all.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Results accepted.
    pub(super) completed: u64,
    /// Failures reported.
    pub(super) failed: u64,
    /// Results refused: the search had ended, or another worker held the lease.
    pub(super) refused: u64,
    /// Evaluations given up because the coordinator canceled them or the simulation ended.
    pub(super) abandoned: u64,
    /// Workers that died with a lease.
    pub(super) killed: u64,
    /// Repeated calls.
    pub(super) repeated: u64,
    /// Microseconds of AcquireLease calls that were answered with a lease.
    pub(super) acquire_us: Vec<u32>,
    /// Microseconds of CompleteEvaluation calls that were accepted.
    pub(super) complete_us: Vec<u32>,
    /// Time spent in evaluations whose results were accepted.
    pub(super) useful: Duration,
    /// The first call for a lease.
    pub(super) first: Option<Instant>,
    /// The last accepted result.
    pub(super) last: Option<Instant>,
}

impl Tally {
    fn add(&mut self, mut other: Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.refused += other.refused;
        self.abandoned += other.abandoned;
        self.killed += other.killed;
        self.repeated += other.repeated;
        self.acquire_us.append(&mut other.acquire_us);
        self.complete_us.append(&mut other.complete_us);
        self.useful += other.useful;
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
    }
}

/// All workers.
pub(super) struct Crew {
    tasks: JoinSet<Result<Tally, Failure>>,
    total: Tally,
}

impl Crew {
    /// Connects and starts all workers.
    pub(super) async fn start(plan: &Arc<Plan>, url: &str, stopped: watch::Receiver<bool>) -> Result<Self, Failure> {
        let mut tasks = JoinSet::new();
        let mut stub = None;
        for number in 0..plan.workers {
            if number % SHARE == 0 {
                stub = Some(connect(url).await?);
            }
            if let Some(stub) = &stub {
                let worker = Worker {
                    number,
                    stub: stub.clone(),
                    plan: plan.clone(),
                    stopped: stopped.clone(),
                    dice: Dice::new(plan, u64::from(number)),
                    tally: Tally::default(),
                };
                tasks.spawn(worker.run());
            }
        }
        Ok(Self { tasks, total: Tally::default() })
    }

    /// Returns when a worker fails.
    pub(super) async fn lost(&mut self) -> Failure {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(tally))) => self.total.add(tally),
                Some(Ok(Err(failure))) => return failure,
                Some(Err(e)) => return Failure::new(format!("a simulated worker failed: {e}")),
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for all workers.
    pub(super) async fn join(mut self) -> Result<Tally, Failure> {
        while let Some(ended) = self.tasks.join_next().await {
            self.total.add(ended.map_err(|e| Failure::new(format!("a simulated worker failed: {e}")))??);
        }
        Ok(self.total)
    }
}

pub(super) async fn connect(url: &str) -> Result<WorkerServiceClient<Channel>, Failure> {
    let ConnectOptions { credentials, connect_timeout, .. } = ConnectOptions::default();
    let endpoint = channel::endpoint(url, &credentials, connect_timeout).map_err(Failure::usage)?;
    let channel = endpoint.connect().await;
    Ok(WorkerServiceClient::new(channel.map_err(|e| Failure::new(format!("cannot connect to {url}: {e}")))?))
}

pub(super) fn refused(number: u32, status: &Status) -> Failure {
    Failure::new(format!("simulated worker {number}: {:?}: {}", status.code(), status.message()))
}

struct Worker {
    number: u32,
    stub: WorkerServiceClient<Channel>,
    plan: Arc<Plan>,
    stopped: watch::Receiver<bool>,
    dice: Dice,
    tally: Tally,
}

/// How the life of a worker ends.
enum End {
    /// The simulation is over.
    Stopped,
    /// The worker died or is no longer known: it registers again under another id.
    Again,
}

/// How an evaluation ends.
enum Evaluated {
    Done,
    Killed,
    Abandoned,
}

impl Worker {
    async fn run(mut self) -> Result<Tally, Failure> {
        loop {
            match self.live().await {
                Ok(End::Stopped) => return Ok(self.tally),
                Ok(End::Again) => {}
                Err(status) => return Err(refused(self.number, &status)),
            }
        }
    }

    /// From registration to death.
    async fn live(&mut self) -> Result<End, Status> {
        let mut declaration = self.plan.declaration.clone();
        declaration.name = format!("simulated/{}", self.number);
        let request = wire::register_request(new_request_id().to_string(), &declaration);
        let id = loop {
            match self.stub.register_worker(request.clone()).await {
                Ok(answer) => break answer.into_inner().worker_id,
                Err(status) => self.again(status).await?,
            }
        };
        let born = Instant::now();
        let dies = self.dice.life(self.plan.death_rate).and_then(|life| born.checked_add(life));
        loop {
            let asked = Instant::now();
            self.tally.first.get_or_insert(asked);
            let request = pb::AcquireLeaseRequest { worker_id: id.clone(), wait: Some(WAIT) };
            let answer = tokio::select! {
                answer = self.stub.acquire_lease(request) => answer,
                () = over(&mut self.stopped) => return Ok(End::Stopped),
                // It held no lease.
                () = sleep_until(dies.unwrap_or(asked + FOR_EVER)), if dies.is_some() => return Ok(End::Again),
            };
            let lease = match answer {
                Ok(answer) => answer.into_inner().lease,
                Err(status) if status.code() == Code::NotFound => return Ok(End::Again),
                Err(status) => {
                    self.again(status).await?;
                    continue;
                }
            };
            let Some(lease) = lease else { continue };
            self.tally.acquire_us.push(micros(asked.elapsed()));
            let span = self.dice.time(self.plan.time);
            match self.evaluate(&id, &lease, span, dies).await? {
                Evaluated::Done => self.report(&id, &lease, span).await?,
                Evaluated::Abandoned => self.tally.abandoned += 1,
                Evaluated::Killed => {
                    self.tally.killed += 1;
                    return Ok(End::Again);
                }
            }
        }
    }

    /// Waits as long as the evaluation takes, and renews its lease.
    async fn evaluate(
        &mut self,
        id: &str,
        lease: &pb::Lease,
        span: Duration,
        dies: Option<Instant>,
    ) -> Result<Evaluated, Status> {
        let ttl = lease.ttl.and_then(|ttl| Duration::try_from(ttl).ok()).unwrap_or(Duration::from_secs(60));
        let ends = Instant::now() + span;
        loop {
            let renews = Instant::now() + ttl / 3;
            let dead = dies.filter(|dies| *dies <= ends.min(renews));
            let next = dead.unwrap_or(ends.min(renews));
            if next > Instant::now() {
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = over(&mut self.stopped) => return Ok(Evaluated::Abandoned),
                }
            }
            if dead.is_some() {
                return Ok(Evaluated::Killed);
            }
            if ends <= renews {
                return Ok(Evaluated::Done);
            }
            let request = pb::RenewLeasesRequest { worker_id: id.to_owned(), leases: vec![lease.into()] };
            match self.stub.renew_leases(request).await {
                Ok(answer) if answer.get_ref().leases.iter().any(|l| l.cancel) => return Ok(Evaluated::Abandoned),
                Ok(_) => {}
                Err(status) => self.again(status).await?,
            }
        }
    }

    async fn report(&mut self, id: &str, lease: &pb::Lease, span: Duration) -> Result<(), Status> {
        let request_id = new_request_id().to_string();
        if self.dice.fails(self.plan.failure_rate) {
            let request = pb::FailEvaluationRequest {
                request_id,
                worker_id: id.to_owned(),
                lease: Some(lease.into()),
                reason: "simulated failure".into(),
                retryable: true,
            };
            loop {
                match self.stub.fail_evaluation(request.clone()).await {
                    Ok(_) => self.tally.failed += 1,
                    Err(status) if status.code() == Code::FailedPrecondition => self.tally.refused += 1,
                    Err(status) => {
                        self.again(status).await?;
                        continue;
                    }
                }
                return Ok(());
            }
        }
        let malformed = |problem: String| Status::internal(format!("the lease: {problem}"));
        let schedule = lease.schedule.as_ref().ok_or_else(|| malformed("no schedule".into()))?;
        let schedule = wire::schedule(&self.plan.layout, schedule).map_err(|e| malformed(e.to_string()))?;
        let prompts = if lease.prompts == 0 { self.plan.spec.prompts.len() } else { lease.prompts as usize };
        let measurement = measure(&schedule, prompts, span, &self.plan, &mut self.dice);
        let request = pb::CompleteEvaluationRequest {
            request_id,
            worker_id: id.to_owned(),
            lease: Some(lease.into()),
            measurement: Some((&measurement).into()),
        };
        loop {
            let sent = Instant::now();
            match self.stub.complete_evaluation(request.clone()).await {
                Ok(_) => {
                    self.tally.complete_us.push(micros(sent.elapsed()));
                    self.tally.completed += 1;
                    self.tally.useful += span;
                    self.tally.last = Some(Instant::now());
                }
                Err(status) if status.code() == Code::FailedPrecondition => self.tally.refused += 1,
                Err(status) => {
                    self.again(status).await?;
                    continue;
                }
            }
            return Ok(());
        }
    }

    /// Waits before a call is repeated; returns errors that a repeat would not change.
    async fn again(&mut self, status: Status) -> Result<(), Status> {
        if !passes(&status) || self.tally.repeated >= REPEATS {
            return Err(status);
        }
        self.tally.repeated += 1;
        sleep(AGAIN).await;
        Ok(())
    }
}

/// Returns when the simulation is over.
async fn over(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends the simulation too.
    let _ = stopped.wait_for(|&stopped| stopped).await;
}

/// Whether repeating a call may help: the coordinator is busy, stopping or starting.
pub(super) fn passes(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::ResourceExhausted) || is_unanswered(status)
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
