//! Sets up a scripted coordinator, an evaluator and the agent between them.

use std::time::Duration;

use evocache_proto::domain::{Calibration, MeasurementPlan, Prompt, Sampling, Schedule};
use evocache_proto::{pb, wire};
use evocache_worker::agent::{self, AgentConfig, AgentError, BackOff, Ended};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::puppet::{Event, Strings, layout, puppet};
use crate::script::{Coordinator, PATIENCE};

/// A lease term that needs no renewal during a test.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// A lease term that is renewed every 20 ms.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

pub(crate) struct Stage {
    pub(crate) coordinator: Coordinator,
    pub(crate) evaluator: Strings,
    agent: JoinSet<Result<Ended, AgentError>>,
    shutdown: Option<oneshot::Sender<()>>,
}

#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) slow_to_prepare: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) listening: bool,
    pub(crate) idle_timeout: Option<Duration>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { slow_to_prepare: false, connect_timeout: PATIENCE, grace: PATIENCE, listening: true, idle_timeout: None }
    }
}

impl Setup {
    /// Starts the agent.
    pub(crate) fn stage(self) -> Stage {
        let mut coordinator = Coordinator::new();
        if self.listening {
            coordinator.start();
        }
        let (puppet, evaluator) = puppet(self.slow_to_prepare);
        let config = AgentConfig {
            connect_timeout: self.connect_timeout,
            grace: self.grace,
            idle_timeout: self.idle_timeout,
            back_off: BackOff { first: Duration::from_millis(2), most: Duration::from_millis(20) },
            ..AgentConfig::new(coordinator.url())
        };
        let (shutdown, asked) = oneshot::channel();
        let mut agent = JoinSet::new();
        agent.spawn(agent::run(config, puppet, async {
            // The sender is dropped when the test ends; that is not a shutdown request.
            if asked.await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        Stage { coordinator, evaluator, agent, shutdown: Some(shutdown) }
    }

    /// Starts the agent and answers its registration with the id `w1`.
    pub(crate) async fn registered(self) -> Stage {
        let mut stage = self.stage();
        stage.register("w1").await;
        stage
    }
}

impl Stage {
    pub(crate) async fn register(&mut self, id: &str) -> pb::RegisterWorkerRequest {
        let answer = pb::RegisterWorkerResponse {
            worker_id: id.into(),
            lease_ttl: LONG.try_into().ok(),
            max_wait: Duration::from_secs(20).try_into().ok(),
        };
        self.coordinator.register_worker.next().await.answer(Ok(answer))
    }

    /// Answers the next AcquireLease with this lease.
    pub(crate) async fn grant(&mut self, lease: pb::Lease) -> pb::AcquireLeaseRequest {
        let answer = pb::AcquireLeaseResponse { lease: Some(lease), draining: false, ..Default::default() };
        self.coordinator.acquire_lease.next().await.answer(Ok(answer))
    }

    pub(crate) async fn calibrate(&mut self) -> pb::GetCalibrationRequest {
        let asked = self.coordinator.get_calibration.next().await;
        let prompt = format!("prompt of {}", asked.request.search_ref);
        asked.answer(Ok(wire::calibration_response(&calibration(&prompt))))
    }

    /// Grants candidate 0 of search `s` and waits until its evaluation starts.
    pub(crate) async fn evaluating(&mut self, ttl: Duration) {
        self.grant(lease("s", 0, ttl)).await;
        self.calibrate().await;
        assert_eq!(self.evaluator.next().await, Event::Preparing("prompt of s".into()));
        self.evaluator.evaluating().await;
    }

    /// Answers the next renewal.
    pub(crate) async fn renew(&mut self, ttl: Duration, cancel: bool, draining: bool) -> pb::RenewLeasesRequest {
        let asked = self.coordinator.renew_leases.next().await;
        let leases = asked.request.leases.iter().map(|lease| pb::LeaseStatus {
            lease: Some(lease.clone()),
            cancel,
            ttl: if cancel { None } else { ttl.try_into().ok() },
        });
        let answer = pb::RenewLeasesResponse { leases: leases.collect(), draining };
        asked.answer(Ok(answer))
    }

    pub(crate) async fn completed(&mut self) -> pb::CompleteEvaluationRequest {
        self.coordinator.complete_evaluation.next().await.answer(Ok(pb::CompleteEvaluationResponse {}))
    }

    pub(crate) async fn failed(&mut self) -> pb::FailEvaluationRequest {
        self.coordinator.fail_evaluation.next().await.answer(Ok(pb::FailEvaluationResponse {}))
    }

    pub(crate) fn shut_down(&mut self) {
        let shutdown = self.shutdown.take().expect("asked once");
        shutdown.send(()).expect("the agent is running");
    }

    pub(crate) async fn ended(&mut self) -> Result<Ended, AgentError> {
        let ended = tokio::time::timeout(PATIENCE, self.agent.join_next()).await;
        ended.expect("the agent ends").expect("the agent was started").expect("the agent does not panic")
    }

    /// Answers that there is no work until the agent ends.
    pub(crate) async fn starved(&mut self) -> Result<Ended, AgentError> {
        loop {
            tokio::select! {
                asked = self.coordinator.acquire_lease.next() => {
                    asked.answer(Ok(pb::AcquireLeaseResponse::default()));
                }
                ended = self.agent.join_next() => {
                    return ended.expect("the agent was started").expect("the agent does not panic");
                }
            }
        }
    }

    /// Asserts that no report about a lease is waiting for an answer.
    pub(crate) fn assert_no_report(&self) {
        assert!(self.coordinator.complete_evaluation.is_empty(), "a result was reported");
        assert!(self.coordinator.fail_evaluation.is_empty(), "a failure was reported");
        assert!(self.coordinator.release_lease.is_empty(), "the lease was released");
    }
}

pub(crate) fn calibration(prompt: &str) -> Calibration {
    Calibration {
        prompts: vec![Prompt { text: prompt.into(), seed: 1 }, Prompt { text: "another".into(), seed: 2 }],
        sampling: Sampling {
            steps: vec![4],
            guidance_scale: 4.5,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        },
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 1 },
    }
}

pub(crate) fn schedule() -> Schedule {
    Schedule::all_compute(layout(), 4).unwrap()
}

pub(crate) fn lease(search: &str, candidate: u64, ttl: Duration) -> pb::Lease {
    pb::Lease {
        search_ref: search.into(),
        candidate,
        epoch: 3,
        schedule: Some((&schedule()).into()),
        ttl: ttl.try_into().ok(),
        attempt: 1,
        prompts: 0,
        profile: false,
    }
}

pub(crate) fn key(search: &str, candidate: u64) -> Option<pb::LeaseRef> {
    Some(pb::LeaseRef { search_ref: search.into(), candidate, epoch: 3 })
}
