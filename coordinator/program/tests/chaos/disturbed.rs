//! A cluster on a bad day: some workers are killed every minute, one is cut off for a while, one is ten times as slow as
//! the others, one lies. The search must end, and with the front that it has without all that.
//!
//! Which schedule is evaluated when depends on who comes first; so that two fronts can be equal, the search is one of given
//! schedules, each measured twice, and a schedule's measurement follows from the schedule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evocache_domain::rng::Stream;
use evocache_proto::domain::{Decision, Imported, Schedule, Strategy};
use evocache_proto::pb::fleet_service_client::FleetServiceClient;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::kills::setting;
use crate::process::{Started, start};
use crate::toy;

const WORKERS: u64 = 10;
/// What an evaluation takes.
const SPAN: Duration = Duration::from_secs(1);
/// A third of the lease's time to live.
const RENEWS: Duration = Duration::from_millis(600);
/// How long one worker is cut off: longer than its lease.
const CUT_OFF: Duration = Duration::from_secs(8);
/// Of all workers, so large a share is killed per minute.
const KILLED: f64 = 0.3;

/// What is wrong with a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    None,
    Slow,
    Lies,
}

/// What a worker has done: busy for so long, in so long from its first call to its last result.
#[derive(Debug, Clone, Copy, Default)]
struct Life {
    busy: Duration,
    all: Duration,
}

type Lives = Arc<Mutex<BTreeMap<u64, Life>>>;

struct Worker {
    number: u64,
    flaw: Flaw,
    stub: WorkerServiceClient<Channel>,
    lives: Lives,
}

impl Worker {
    /// Works until nobody wants it.
    async fn run(mut self) {
        let request = wire::register_request(String::new(), &toy::declaration(&format!("w-{}", self.number)));
        let id = loop {
            match self.stub.register_worker(request.clone()).await {
                Ok(answer) => break answer.into_inner().worker_id,
                Err(status) => again(status).await.unwrap(),
            }
        };
        let began = Instant::now();
        loop {
            let wait = Some(prost_types::Duration { seconds: 1, nanos: 0 });
            let answer = self.stub.acquire_lease(pb::AcquireLeaseRequest { worker_id: id.clone(), wait }).await;
            let lease = match answer {
                Ok(answer) => answer.into_inner().lease,
                // In quarantine: a real worker ends with an error.
                Err(status) if status.code() == Code::FailedPrecondition => return,
                Err(status) => {
                    again(status).await.unwrap();
                    continue;
                }
            };
            let Some(lease) = lease else { continue };
            let span = if self.flaw == Flaw::Slow { SPAN * 10 } else { SPAN };
            self.evaluate(&id, &lease, span).await;
            if self.report(&id, &lease).await {
                let mut lives = self.lives.lock().unwrap();
                let life = lives.entry(self.number).or_default();
                (life.busy, life.all) = (life.busy + span, began.elapsed());
            }
        }
    }

    /// Takes its time, and keeps the lease alive as far as the network lets it.
    async fn evaluate(&self, id: &str, lease: &pb::Lease, span: Duration) {
        let renewing = async {
            loop {
                tokio::time::sleep(RENEWS).await;
                let request = pb::RenewLeasesRequest { worker_id: id.to_owned(), leases: vec![lease.into()] };
                // What is lost now is said again.
                let _ = self.stub.clone().renew_leases(request).await;
            }
        };
        let _ = tokio::time::timeout(span, renewing).await;
    }

    /// Whether the result was taken.
    async fn report(&mut self, id: &str, lease: &pb::Lease) -> bool {
        let schedule = wire::schedule(&toy::layout(), lease.schedule.as_ref().unwrap()).unwrap();
        let digits = u64::from_str_radix(&schedule.id().to_string()[..12], 16).unwrap();
        let mut measurement = toy::measure(&schedule, lease.prompts, vec![], &mut Stream::new(1, "exact", digits));
        if self.flaw == Flaw::Lies {
            measurement.metrics[0].values.iter_mut().for_each(|value| *value *= 1.1);
        }
        let request = pb::CompleteEvaluationRequest {
            request_id: String::new(),
            worker_id: id.to_owned(),
            lease: Some(lease.into()),
            measurement: Some((&measurement).into()),
        };
        loop {
            match self.stub.complete_evaluation(request.clone()).await {
                Ok(_) => return true,
                Err(status) if status.code() == Code::FailedPrecondition => return false,
                Err(status) => again(status).await.unwrap(),
            }
        }
    }
}

/// Waits before a call is repeated, if a repeat may change anything.
async fn again(status: Status) -> Result<(), Status> {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::DeadlineExceeded => {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        }
        _ => Err(status),
    }
}

fn channel(port: u16) -> Channel {
    Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap().tcp_nodelay(true).connect_lazy()
}

/// Carries connections to the coordinator while `open`; otherwise ends those that there are and takes no more.
async fn wire_that_can_be_cut(listener: TcpListener, port: u16, open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut open = open.clone();
        connections.spawn(async move {
            if !*open.borrow() {
                return;
            }
            let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = open.wait_for(|open| !open) => {}
            }
        });
    }
}

/// Different schedules, the same for the same seed.
fn given(seed: u64, count: usize) -> Vec<Imported> {
    let mut ids = BTreeSet::new();
    let schedules = (0..).map(|i| {
        let mut chance = Stream::new(seed, "given", i);
        let density = chance.unit();
        let decide = |_, _| if chance.chance(density) { Decision::Reuse } else { Decision::Compute };
        Schedule::from_fn(toy::layout(), 6, decide).unwrap()
    });
    let new = schedules.filter(|schedule| schedule.computed() < 36 && ids.insert(schedule.id()));
    (0..count).zip(new).map(|(i, schedule)| Imported { name: format!("given-{i}"), schedule }).collect()
}

/// What a run came to.
struct Outcome {
    /// Schedules of the front, with what is reported of each.
    front: BTreeMap<String, String>,
    lives: BTreeMap<u64, Life>,
    killed: u64,
    quarantined: Vec<String>,
    took: Duration,
}

async fn run(seed: u64, schedules: usize, bad_day: bool) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (mut process, started) = start(&folder.path().join("store"), port, &folder.path().join("log"), None);
    assert!(matches!(started, Started::Listens(_)));
    let mut draft = toy::draft(10 * schedules as u64, 2 * seed);
    draft.algorithm.strategy = Strategy::Imported;
    draft.imported = given(seed, schedules);
    let spec = draft.validate().unwrap();
    let mut searches = SearchServiceClient::new(channel(port)).max_decoding_message_size(64 << 20);
    let create = pb::CreateSearchRequest {
        search_id: "s".into(),
        spec: Some((&spec).into()),
        ..pb::CreateSearchRequest::default()
    };
    searches.create_search(create).await.unwrap();

    let lives = Lives::default();
    let mut tasks = JoinSet::new();
    let mut next = 0;
    let mut begin = |tasks: &mut JoinSet<()>, flaw, port| -> (u64, AbortHandle) {
        let worker = Worker { number: next, flaw, stub: WorkerServiceClient::new(channel(port)), lives: lives.clone() };
        next += 1;
        (next - 1, tasks.spawn(worker.run()))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire = listener.local_addr().unwrap().port();
    let (cut, open) = watch::channel(true);
    let mut network = JoinSet::new();
    network.spawn(wire_that_can_be_cut(listener, port, open));
    // Those that nothing is wrong with: they may be killed.
    let mut healthy = vec![];
    for i in 0..WORKERS {
        match i {
            0 if bad_day => drop(begin(&mut tasks, Flaw::Slow, port)),
            1 if bad_day => drop(begin(&mut tasks, Flaw::Lies, port)),
            2 if bad_day => drop(begin(&mut tasks, Flaw::None, wire)),
            _ => healthy.push(begin(&mut tasks, Flaw::None, port)),
        }
    }
    let began = Instant::now();
    let mut chance = Stream::new(seed, "disturbed", 0);
    let every = Duration::from_secs_f64(60.0 / (KILLED * WORKERS as f64));
    let (mut killed, mut cuts) = (0, 0);
    let patience = SPAN * (20 * schedules as u32) + Duration::from_secs(60);
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(began.elapsed() < patience, "the search does not end");
        while let Some(ended) = tasks.try_join_next() {
            assert!(
                !ended.as_ref().is_err_and(|e| e.is_panic()),
                "a worker got an answer that it should not: {ended:?}"
            );
        }
        let request = pb::GetSearchRequest { search_id: "s".into() };
        if searches.get_search(request).await.unwrap().into_inner().search.unwrap().end_time.is_some() {
            break;
        }
        if !bad_day {
            continue;
        }
        if began.elapsed() > every * (killed as u32 + 1) {
            killed += 1;
            let (number, task) = healthy.remove(chance.below(healthy.len()));
            task.abort();
            // It did not live to its end: it is not one of those that are told about.
            lives.lock().unwrap().remove(&number);
            healthy.push(begin(&mut tasks, Flaw::None, port));
        }
        let phase = if began.elapsed() > Duration::from_secs(4) + CUT_OFF { 2 } else { 1 };
        if cuts == 0 && began.elapsed() > Duration::from_secs(4) {
            (cuts, _) = (1, cut.send(false));
        }
        if cuts == 1 && phase == 2 {
            (cuts, _) = (2, cut.send(true));
        }
    }
    let took = began.elapsed();
    let front = searches.get_front(pb::GetFrontRequest { search_id: "s".into(), ..Default::default() }).await.unwrap();
    let told = |e: &pb::Evaluation| {
        let measurement = e.measurement.as_ref().unwrap();
        // What is believed of a latency is a sum over all results, in the order in which they came.
        format!("{:?} {:.9}", measurement.metrics, e.latency_ratio.as_ref().unwrap().value)
    };
    let id = |e: &pb::Evaluation| format!("{:?}", e.schedule.as_ref().unwrap());
    let front = front.into_inner().evaluations.iter().map(|e| (id(e), told(e))).collect();
    let workers = FleetServiceClient::new(channel(port)).list_workers(pb::ListWorkersRequest::default()).await.unwrap();
    let workers = workers.into_inner().workers;
    let quarantined = workers.into_iter().filter(|w| !w.quarantine.is_empty());
    let quarantined = quarantined.map(|w| format!("{}: {}", w.name, w.quarantine)).collect();
    let kept: BTreeSet<u64> = healthy.iter().map(|(number, _)| *number).collect();
    let lives = lives.lock().unwrap().iter().filter(|(n, _)| kept.contains(n)).map(|(n, life)| (*n, *life)).collect();
    process.kill();
    Outcome { front, lives, killed, quarantined, took }
}

impl Outcome {
    fn utilisation(&self) -> f64 {
        let sum = |part: fn(&Life) -> Duration| self.lives.values().map(part).sum::<Duration>().as_secs_f64();
        sum(|life| life.busy) / sum(|life| life.all)
    }

    fn print(&self, name: &str) {
        println!(
            "disturbed: {name}: {:.1} s, front of {}, {} healthy workers busy {:.2} % of their time, {} killed, in \
             quarantine: {:?}",
            self.took.as_secs_f64(),
            self.front.len(),
            self.lives.len(),
            100.0 * self.utilisation(),
            self.killed,
            self.quarantined,
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: two searches in real time"]
async fn disturbed_searches_end_with_the_front_of_undisturbed_ones() {
    let (seed, schedules) = (setting("CHAOS_SEED", 1), 100 * setting("CHAOS_ROUNDS", 4) as usize);
    println!("disturbed: seed {seed}, {schedules} schedules");
    let calm = run(seed, schedules, false).await;
    calm.print("calm");
    let bad = run(seed, schedules, true).await;
    bad.print("bad day");
    assert_eq!(calm.quarantined, Vec::<String>::new());
    assert_eq!(bad.quarantined.len(), 1, "the liar and nobody else");
    assert!(bad.quarantined[0].starts_with("w-1: "));
    assert_eq!(calm.front, bad.front);
}
