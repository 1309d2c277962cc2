//! What others can make a coordinator do, of a process of its own: memory is that of the process, files are limited as an
//! operator would limit them. Bounds are on bytes and counts; `worst.rs` prints seconds too.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use evocache_net::tokens::{Role, entry};
use evocache_proto::pb;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::support::{Coordinator, write};

/// A coordinator that asks for tokens: `op`, `w`, `honest`, and `a0` to `a63` of readers, `b0` to `b63` of workers.
pub(crate) fn start(folder: &Path, files: u32, log: Stdio) -> Coordinator {
    let mut entries = [entry("op", Role::Operator, "op", None), entry("w", Role::Worker, "w", None)].concat();
    entries += &entry("honest", Role::Reader, "honest", None);
    for i in 0..64 {
        entries += &entry(&format!("a{i}"), Role::Reader, &format!("a{i}"), None);
        entries += &entry(&format!("b{i}"), Role::Worker, &format!("b{i}"), None);
    }
    let tokens = write(folder, "tokens.toml", &entries);
    let flags = ["--tokens", &tokens, "--http", "127.0.0.1:0", "--reserve", "0"];
    Coordinator::start_limited(&folder.join("data"), &flags, files, log)
}

pub(crate) fn with<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    let value: AsciiMetadataValue = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

pub(crate) async fn channel(coordinator: &Coordinator) -> Channel {
    Channel::from_shared(coordinator.url.clone()).unwrap().connect().await.unwrap()
}

pub(crate) fn spec(thumbnails: u32) -> pb::SearchSpec {
    pb::SearchSpec {
        model: Some(pb::ModelRef { name: "toy".into(), fingerprint: None }),
        sampling: Some(pb::Sampling { steps: vec![12, 8], guidance_scale: 3.0, ..Default::default() }),
        prompts: vec![pb::Prompt { text: "an owl".into(), seed: 1 }],
        measurement: Some(pb::MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails }),
        objectives: vec![
            pb::Objective { metric: "latency_ratio".into(), direction: 1, bound: None },
            pb::Objective { metric: "likeness".into(), direction: 2, bound: None },
        ],
        budget: Some(pb::Budget { evaluations: Some(1000), ..Default::default() }),
        seed: 1,
        ..Default::default()
    }
}

fn component(name: String) -> pb::Component {
    pb::Component { name, feeds: None }
}

/// A layout of so many blocks of so many components.
pub(crate) fn layout(blocks: u32, components: usize) -> pb::Layout {
    let components = (0..components).map(|i| component(format!("c{i}"))).collect();
    pb::Layout { groups: vec![pb::BlockGroup { name: "block".into(), count: blocks, components }] }
}

pub(crate) fn register(model: &str, layout: pb::Layout) -> pb::RegisterWorkerRequest {
    let metric =
        pb::MetricDeclaration { name: "likeness".into(), direction: 2, unit: "1".into(), ..Default::default() };
    pb::RegisterWorkerRequest {
        protocol_version: evocache_proto::PROTOCOL_VERSION,
        name: "w".into(),
        device: "none".into(),
        software: "test".into(),
        model: model.into(),
        fingerprint: "f".into(),
        layout: Some(layout),
        metrics: vec![metric],
        ..Default::default()
    }
}

pub(crate) async fn create(coordinator: &Coordinator, id: &str, spec: pb::SearchSpec) -> Result<(), Status> {
    let create = pb::CreateSearchRequest { search_id: id.into(), spec: Some(spec), ..Default::default() };
    SearchServiceClient::new(channel(coordinator).await).create_search(with("op", create)).await.map(drop)
}

/// Evaluates so many candidates, each with pictures of so many bytes.
pub(crate) async fn evaluate(
    coordinator: &Coordinator,
    token: &str,
    register: pb::RegisterWorkerRequest,
    most: u64,
    bytes: usize,
) {
    let client = WorkerServiceClient::new(channel(coordinator).await);
    work(client, token, register, Results { most, prompts: 1, bytes }).await;
}

/// What a worker sends: at most so many results, each of so many prompts and with pictures of so many bytes.
pub(crate) struct Results {
    pub(crate) most: u64,
    pub(crate) prompts: usize,
    pub(crate) bytes: usize,
}

pub(crate) async fn work(
    client: WorkerServiceClient<Channel>,
    token: &str,
    register: pb::RegisterWorkerRequest,
    Results { most, prompts, bytes }: Results,
) {
    let mut client = client.max_encoding_message_size(64 << 20);
    let worker_id = client.register_worker(with(token, register)).await.unwrap().into_inner().worker_id;
    for i in 0..most {
        let wait = Some(prost_types::Duration { seconds: 20, nanos: 0 });
        let acquire = pb::AcquireLeaseRequest { worker_id: worker_id.clone(), wait };
        let Some(lease) = client.acquire_lease(with(token, acquire)).await.unwrap().into_inner().lease else { return };
        let share = 1.0 / (1.0 + i as f64 / 20.0);
        let measurement = pb::Measurement {
            metrics: vec![pb::MetricValues {
                name: "likeness".into(),
                values: vec![share; prompts],
                baseline_mean: 1.0,
            }],
            latency_us: vec![100.0 * share + 10.0],
            baseline_latency_us: vec![110.0],
            macs: 10,
            baseline_macs: 10,
            device_time: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
            thumbnails: if bytes > 0 { vec![vec![7; bytes].into(); 16] } else { vec![] },
            ..Default::default()
        };
        let complete = pb::CompleteEvaluationRequest {
            worker_id: worker_id.clone(),
            lease: Some((&lease).into()),
            measurement: Some(measurement),
            ..Default::default()
        };
        client.complete_evaluation(with(token, complete)).await.unwrap();
    }
}

/// An answer of which nothing is read: the caller's window stays as it is.
pub(crate) async fn unread<M: Message + 'static, R: Message + Default + 'static>(
    channel: Channel,
    path: &'static str,
    request: Request<M>,
) -> Result<Streaming<R>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static(path);
    client.server_streaming(request, path, ProstCodec::<M, R>::default()).await.map(tonic::Response::into_inner)
}

pub(crate) fn front() -> pb::GetFrontRequest {
    pb::GetFrontRequest { search_id: "toy".into(), include_thumbnails: true, page_size: 1000, ..Default::default() }
}

pub(crate) const FRONT: &str = "/evocache.v1.SearchService/GetFront";

/// Resident memory of a process in MiB.
pub(crate) fn resident(coordinator: &Coordinator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", coordinator.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// The largest that it has been.
fn peak(coordinator: &Coordinator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", coordinator.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

pub(crate) fn metric(coordinator: &Coordinator, name: &str) -> f64 {
    let text = coordinator.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_out_and_fill_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // 256 files, which leaves 128 connections.
    let coordinator = start(folder.path(), 256, std::fs::File::create(&log).unwrap().into());
    let mut honest = SearchServiceClient::new(channel(&coordinator).await);
    let list = || with("honest", pb::ListSearchesRequest::default());
    honest.list_searches(list()).await.unwrap();
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let (grpc, http) = (address(&coordinator.url), address(coordinator.http.as_ref().unwrap()));
    let mut silent: Vec<TcpStream> = vec![];
    for round in 0..300 {
        silent.extend([&grpc, &http].map(|at| TcpStream::connect(at).unwrap()));
        if round % 50 == 49 {
            // One that is there already, one that comes, and an operator.
            honest.list_searches(list()).await.unwrap();
            SearchServiceClient::new(channel(&coordinator).await).list_searches(list()).await.unwrap();
            assert!(metric(&coordinator, "evocache_connections") <= 128.0 + 32.0);
        }
    }
    assert_eq!(metric(&coordinator, "evocache_connections_refused_total"), 0.0);
    assert!(metric(&coordinator, "evocache_connections_closed_total") >= 140.0);
    // Whoever never calls is closed, without anybody who needs the room.
    let closed = tokio::task::spawn_blocking(move || {
        silent.iter_mut().all(|stream| {
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            matches!(stream.read(&mut [0; 64]), Ok(0)) || stream.read(&mut [0; 64]).is_ok_and(|n| n == 0)
        })
    });
    assert!(closed.await.unwrap());
    let lines = std::fs::read_to_string(&log).unwrap().lines().count();
    assert!(lines < 40, "{lines} lines");
    assert_eq!(coordinator.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_take_no_more_than_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), 4096, Stdio::null());
    create(&coordinator, "toy", spec(16)).await.unwrap();
    evaluate(&coordinator, "w", register("toy", layout(4, 3)), 24, 200_000).await;
    let before = resident(&coordinator);
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let channel = channel(&coordinator).await;
        for _ in 0..256 {
            let call = unread::<_, pb::GetFrontResponse>(channel.clone(), FRONT, with("a0", front()));
            held.spawn(call);
        }
    }
    let mut honest = SearchServiceClient::new(channel(&coordinator).await);
    for _ in 0..20 {
        // With gRPC's default limit of 4 MiB.
        let page = honest.get_front(with("honest", front())).await.unwrap().into_inner();
        assert!(!page.evaluations.is_empty() && !page.next_page_token.is_empty());
        assert!(page.encoded_len() < 4 << 20, "{}", page.encoded_len());
    }
    let answers = metric(&coordinator, "evocache_held_bytes{of=\"answers\"}");
    assert!((1e6..=(40 << 20) as f64).contains(&answers), "{answers}");
    let grown = peak(&coordinator) - before;
    assert!(grown < 400, "{grown} MiB for 512 unread answers");
    drop(held);
    let released = async {
        while metric(&coordinator, "evocache_held_bytes{of=\"answers\"}") > 0.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), released).await.unwrap();
}
