//! The load: workers that evaluate, fail, give back, vanish and repeat themselves, and those who launch one search
//! after the other. They never give up a call: it is repeated with its request id until it is answered, by whichever
//! coordinator listens then. What was answered goes into the ledger.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use evocache::engine::LeaseKey;
use evocache_domain::rng::Stream;
use evocache_proto::domain::{CandidateId, Epoch, RequestId, SearchId, WorkerId};
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::ledger::{Ledger, Taken};
use crate::toy;

/// A call that was not answered is repeated after this.
const AGAIN: Duration = Duration::from_millis(3);
/// Whoever launched a search looks this often whether it has ended.
const LOOK: Duration = Duration::from_millis(10);
/// A call that takes longer has lost its connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Searches at a time, small and large. A small one ends often; where it waits for leases that a dead coordinator gave
/// out and nobody knows of, there is work in a large one.
const LAUNCHERS: u64 = 3;

/// What kind of load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    /// Keeps the names of several loads on one store apart.
    pub(crate) life: u64,
    pub(crate) workers: u64,
    /// Evaluations of a small search.
    pub(crate) evaluations: u64,
    /// Bytes of the pictures that come with a result, at most.
    pub(crate) pictures: usize,
}

/// The crew at work; it ends with this.
pub(crate) struct Crew {
    ledger: Arc<Mutex<Ledger>>,
    tasks: JoinSet<()>,
}

/// Told of every answer, with all that was answered by then.
pub(crate) type Told = Arc<dyn Fn(&Ledger) + Send + Sync>;

impl Crew {
    /// Starts it, against a coordinator that need not be there yet. Answers are added to the ledger.
    pub(crate) fn start(load: Load, port: u16, told: Told, ledger: Ledger) -> Self {
        let ledger = Arc::new(Mutex::new(ledger));
        let mut tasks = JoinSet::new();
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let channel = channel.connect_timeout(PATIENCE).tcp_nodelay(true).connect_lazy();
        for number in 0..LAUNCHERS + load.workers {
            let member = Member {
                load,
                number,
                calls: 0,
                chance: Stream::new(load.seed, "crew", number),
                channel: channel.clone(),
                ledger: ledger.clone(),
                told: told.clone(),
            };
            if number < LAUNCHERS {
                tasks.spawn(member.launch());
            } else {
                tasks.spawn(member.work());
            }
        }
        Self { ledger, tasks }
    }

    /// A copy of what was answered so far.
    pub(crate) fn ledger(&self) -> Ledger {
        lock(&self.ledger).clone()
    }

    /// How many calls were answered so far.
    pub(crate) fn answers(&self) -> usize {
        lock(&self.ledger).answers()
    }

    /// Ends it and gives what was answered.
    pub(crate) async fn stop(mut self) -> Ledger {
        self.tasks.shutdown().await;
        self.ledger()
    }

    /// Panics if one of the crew has: a refusal that should not be.
    pub(crate) fn fine(&mut self) {
        if let Some(ended) = self.tasks.try_join_next() {
            ended.unwrap();
            panic!("nobody of the crew ends");
        }
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap()
}

struct Member {
    load: Load,
    number: u64,
    calls: u64,
    chance: Stream,
    channel: Channel,
    ledger: Arc<Mutex<Ledger>>,
    told: Told,
}

impl Member {
    fn request_id(&mut self) -> String {
        self.calls += 1;
        format!("r-{}-{}-{}", self.load.life, self.number, self.calls)
    }

    /// Calls until there is an answer that is one: not that nobody listens, or that the store fails.
    async fn call<Q: Clone, A, F>(&self, request: &Q, mut call: impl FnMut(Channel, Q) -> F) -> Result<A, Status>
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        loop {
            match tokio::time::timeout(PATIENCE, call(self.channel.clone(), request.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if is_answer(&status) => return Err(status),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    fn note(&self, note: impl FnOnce(&mut Ledger)) {
        let mut ledger = lock(&self.ledger);
        note(&mut ledger);
        (self.told)(&ledger);
    }

    /// One search after the other.
    async fn launch(mut self) {
        for number in 0.. {
            let evaluations = self.load.evaluations * (1 + 6 * self.number);
            let spec = toy::spec(evaluations, self.chance.bits() >> 12);
            let id = format!("s-{}-{}-{number}", self.load.life, self.number);
            let request = pb::CreateSearchRequest {
                request_id: self.request_id(),
                search_id: id.clone(),
                spec: Some((&spec).into()),
                ..pb::CreateSearchRequest::default()
            };
            let create = |c, q| async { SearchServiceClient::new(c).create_search(q).await };
            let created = self.call(&request, create).await.unwrap_or_else(|e| panic!("launch {id}: {e}"));
            assert_eq!(created.search.unwrap().search_id, id);
            self.note(|ledger| {
                ledger.searches.push(SearchId::new(id.clone()).unwrap());
                ledger.requests.push(RequestId::new(request.request_id.clone()).unwrap());
            });
            while !self.has_ended(&id).await {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    async fn has_ended(&self, id: &str) -> bool {
        let request = pb::GetSearchRequest { search_id: id.to_owned() };
        let get = |c, q| async { SearchServiceClient::new(c).get_search(q).await };
        let got = self.call(&request, get).await.unwrap_or_else(|e| panic!("look at {id}: {e}"));
        got.search.unwrap().end_time.is_some()
    }

    async fn work(mut self) {
        loop {
            let declaration = toy::declaration(&format!("w-{}", self.number));
            let request = wire::register_request(self.request_id(), &declaration);
            let register = |c, q| async { WorkerServiceClient::new(c).register_worker(q).await };
            let answer = self.call(&request, register).await.unwrap_or_else(|e| panic!("register: {e}"));
            let id = WorkerId::new(answer.worker_id).unwrap();
            if self.chance.chance(0.2) {
                let again = self.call(&request, register).await.unwrap();
                assert_eq!(again.worker_id, id.as_str(), "a repeated registration gave another id");
            }
            self.note(|ledger| {
                ledger.workers.push(id.clone());
                ledger.requests.push(RequestId::new(request.request_id.clone()).unwrap());
            });
            while self.evaluate(&id).await {}
        }
    }

    /// Takes a candidate and deals with it somehow; whether the worker lives on.
    async fn evaluate(&mut self, id: &WorkerId) -> bool {
        let wait = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let request = pb::AcquireLeaseRequest { worker_id: id.to_string(), wait };
        let acquire = |c, q| async { WorkerServiceClient::new(c).acquire_lease(q).await };
        let lease = match self.call(&request, acquire).await {
            Ok(answer) => answer.lease,
            Err(status) => panic!("acquire for {id}: {status}"),
        };
        let Some(lease) = lease else { return true };
        match self.chance.below(100) {
            // Gone without a word: the lease has to expire.
            0..2 => false,
            2..6 => {
                self.give_up(id, &lease).await;
                true
            }
            6..10 => {
                let request_id = self.request_id();
                let request =
                    pb::ReleaseLeaseRequest { request_id, worker_id: id.to_string(), lease: Some((&lease).into()) };
                let release = |c, q| async { WorkerServiceClient::new(c).release_lease(q).await };
                let answer = self.call(&request, release).await.map(drop);
                self.settle(&request.request_id, answer, |_| {});
                true
            }
            _ => {
                self.complete(id, &lease).await;
                true
            }
        }
    }

    async fn give_up(&mut self, id: &WorkerId, lease: &pb::Lease) {
        let request = pb::FailEvaluationRequest {
            request_id: self.request_id(),
            worker_id: id.to_string(),
            lease: Some(lease.into()),
            reason: "bad luck".into(),
            retryable: true,
        };
        let fail = |c, q| async { WorkerServiceClient::new(c).fail_evaluation(q).await };
        let answer = self.call(&request, fail).await.map(drop);
        self.settle(&request.request_id, answer, |_| {});
    }

    async fn complete(&mut self, id: &WorkerId, lease: &pb::Lease) {
        let schedule = wire::schedule(&toy::layout(), lease.schedule.as_ref().unwrap()).unwrap();
        let mut pictures = vec![];
        if self.load.pictures > 0 {
            // What does not compress and is like no other.
            let length = 1 + self.chance.below(self.load.pictures);
            pictures.push((0..length.div_ceil(8)).flat_map(|_| self.chance.bits().to_le_bytes()).collect());
        }
        let measurement = toy::measure(&schedule, lease.prompts, pictures, &mut self.chance);
        let mut request = pb::CompleteEvaluationRequest {
            request_id: self.request_id(),
            worker_id: id.to_string(),
            lease: Some(lease.into()),
            measurement: Some((&measurement).into()),
        };
        let complete = |c, q| async { WorkerServiceClient::new(c).complete_evaluation(q).await };
        let answer = self.call(&request, complete).await.map(drop);
        let taken = answer.is_ok();
        let lease = LeaseKey {
            search: lease.search_ref.parse().unwrap(),
            candidate: CandidateId(lease.candidate),
            epoch: Epoch(lease.epoch),
        };
        let result = Taken { worker: id.clone(), lease, measurement };
        match answer {
            Ok(()) => self.note(|ledger| ledger.results.push(result)),
            Err(status) if status.code() == Code::FailedPrecondition => {}
            Err(status) => panic!("a result: {status}"),
        }
        // The answer may have been lost on its way: a repeat, and a repeat under a new name, change nothing.
        if taken && self.chance.chance(0.1) {
            if self.chance.chance(0.5) {
                request.request_id = self.request_id();
            }
            self.call(&request, complete).await.unwrap_or_else(|e| panic!("a repeated result was refused: {e}"));
        }
    }

    /// Notes an answer. Refused may be what came too late.
    fn settle(&self, request: &str, answer: Result<(), Status>, note: impl FnOnce(&mut Ledger)) {
        match answer {
            Ok(()) => self.note(|ledger| {
                ledger.requests.push(RequestId::new(request).unwrap());
                note(ledger);
            }),
            Err(status) if status.code() == Code::FailedPrecondition => {}
            Err(status) => panic!("{request}: {status}"),
        }
    }
}

fn is_answer(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::ResourceExhausted | Code::DeadlineExceeded => false,
        // A connection that breaks in the middle of an answer.
        Code::Internal => !status.message().starts_with("h2 protocol error"),
        _ => true,
    }
}
