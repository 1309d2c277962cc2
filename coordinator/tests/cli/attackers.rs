//! What others can make a coordinator do, of a process of its own: memory is that of the process, files are limited as an
//! operator would limit them. Bounds are on bytes and counts; `the_worst_that_others_can_cost` prints seconds too.

use std::io::Read;
use std::marker::PhantomData;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use evocache::tokens::{Role, entry};
use evocache_proto::pb;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use prost::Message;
use prost::bytes::BufMut;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::Bytes;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::support::{Coordinator, write};

/// A coordinator that asks for tokens: `op`, `w`, `honest`, and `a0` to `a63` of readers, `b0` to `b63` of workers.
fn start(folder: &Path, files: u32, log: Stdio) -> Coordinator {
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

fn with<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    let value: AsciiMetadataValue = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

async fn channel(coordinator: &Coordinator) -> Channel {
    Channel::from_shared(coordinator.url.clone()).unwrap().connect().await.unwrap()
}

fn spec(thumbnails: u32) -> pb::SearchSpec {
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
fn layout(blocks: u32, components: usize) -> pb::Layout {
    let components = (0..components).map(|i| component(format!("c{i}"))).collect();
    pb::Layout { groups: vec![pb::BlockGroup { name: "block".into(), count: blocks, components }] }
}

fn register(model: &str, layout: pb::Layout) -> pb::RegisterWorkerRequest {
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

async fn create(coordinator: &Coordinator, id: &str, spec: pb::SearchSpec) -> Result<(), Status> {
    let create = pb::CreateSearchRequest { search_id: id.into(), spec: Some(spec), ..Default::default() };
    SearchServiceClient::new(channel(coordinator).await).create_search(with("op", create)).await.map(drop)
}

/// Evaluates so many candidates, each with pictures of so many bytes.
async fn evaluate(
    coordinator: &Coordinator,
    token: &str,
    register: pb::RegisterWorkerRequest,
    most: u64,
    bytes: usize,
) {
    work(WorkerServiceClient::new(channel(coordinator).await), token, register, most, bytes).await;
}

async fn work(
    client: WorkerServiceClient<Channel>,
    token: &str,
    register: pb::RegisterWorkerRequest,
    most: u64,
    bytes: usize,
) {
    let mut client = client.max_encoding_message_size(64 << 20);
    let worker_id = client.register_worker(with(token, register)).await.unwrap().into_inner().worker_id;
    for i in 0..most {
        let wait = Some(prost_types::Duration { seconds: 20, nanos: 0 });
        let acquire = pb::AcquireLeaseRequest { worker_id: worker_id.clone(), wait };
        let Some(lease) = client.acquire_lease(with(token, acquire)).await.unwrap().into_inner().lease else { return };
        let share = 1.0 / (1.0 + i as f64 / 20.0);
        let measurement = pb::Measurement {
            metrics: vec![pb::MetricValues { name: "likeness".into(), values: vec![share], baseline_mean: 1.0 }],
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
            lease: Some(pb::LeaseRef { search_ref: lease.search_ref, candidate: lease.candidate, epoch: lease.epoch }),
            measurement: Some(measurement),
            ..Default::default()
        };
        client.complete_evaluation(with(token, complete)).await.unwrap();
    }
}

/// An answer of which nothing is read: the caller's window stays as it is.
async fn unread<M: Message + 'static, R: Message + Default + 'static>(
    channel: Channel,
    path: &'static str,
    request: Request<M>,
) -> Result<Streaming<R>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::from_static(path);
    client.server_streaming(request, path, ProstCodec::<M, R>::default()).await.map(tonic::Response::into_inner)
}

fn front() -> pb::GetFrontRequest {
    pb::GetFrontRequest { search_id: "toy".into(), include_thumbnails: true, page_size: 1000, ..Default::default() }
}

const FRONT: &str = "/evocache.v1.SearchService/GetFront";

/// Resident memory of a process in MiB.
fn resident(coordinator: &Coordinator) -> u64 {
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

fn metric(coordinator: &Coordinator, name: &str) -> f64 {
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

/// Seconds that the engine has worked, and the longest at a stretch by its histogram.
fn busy(coordinator: &Coordinator) -> (f64, f64) {
    let text = coordinator.metrics();
    let number = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    let of = |name: &str| text.lines().find(|line| line.starts_with(name)).map(number).unwrap();
    let count = of("evocache_engine_busy_seconds_count");
    let longest = text.lines().filter(|line| line.starts_with("evocache_engine_busy_seconds_bucket"));
    let longest = longest.filter(|line| number(line) >= count).find_map(|line| line.split('"').nth(1)?.parse().ok());
    (of("evocache_engine_busy_seconds_sum"), longest.unwrap_or(f64::INFINITY))
}

type Attack = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// One attacker: its number, a connection, where the coordinator is.
type Attacker = fn(usize, Channel, String) -> Attack;

/// Requests that are encoded already.
struct Encoded<R>(PhantomData<fn() -> R>);

impl<R: Message + Default + 'static> Codec for Encoded<R> {
    type Encode = Bytes;
    type Decode = R;
    type Encoder = Encoded<R>;
    type Decoder = <ProstCodec<(), R> as Codec>::Decoder;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<(), R>::default().decoder()
    }
}

impl<R> Encoder for Encoded<R> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

/// For ever the same call, eight at a time.
fn again<M: Message, R: Message + Default + 'static>(
    channel: Channel,
    path: &'static str,
    token: String,
    message: M,
) -> Attack {
    // Once: hundreds of decoded messages are more than this machine has room for.
    let message = Bytes::from(message.encode_to_vec());
    Box::pin(async move {
        let call = || async {
            loop {
                let mut client = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
                if client.ready().await.is_err() {
                    return;
                }
                let (path, request) = (PathAndQuery::from_static(path), with(&token, message.clone()));
                let codec = Encoded::<R>(PhantomData);
                let refused =
                    client.unary(request, path, codec).await.is_err_and(|e| e.code() == Code::ResourceExhausted);
                if refused {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        futures::future::join_all((0..8).map(|_| call())).await;
    })
}

const LIST: &str = "/evocache.v1.SearchService/ListEvaluations";
const BEST: &str = "/evocache.v1.SearchService/GetBestSchedule";
const CREATE: &str = "/evocache.v1.SearchService/CreateSearch";
const REGISTER: &str = "/evocache.v1.WorkerService/RegisterWorker";
const COMPLETE: &str = "/evocache.v1.WorkerService/CompleteEvaluation";

/// What each role can do that costs much; `LIMITS.md` says what is missing.
fn attacks() -> Vec<(&'static str, &'static str, Attacker)> {
    vec![
        ("nobody", "–", |_, _, _| Box::pin(std::future::pending())),
        ("reader", "512 fronts with pictures, not read", |i, channel, _| {
            Box::pin(async move {
                let token = format!("a{i}");
                let call = || unread::<_, pb::GetFrontResponse>(channel.clone(), FRONT, with(&token, front()));
                let held = futures::future::join_all((0..512).map(|_| call())).await;
                std::future::pending::<()>().await;
                drop(held);
            })
        }),
        ("reader", "fronts with pictures, read", |i, channel, _| {
            again::<_, pb::GetFrontResponse>(channel, FRONT, format!("a{i}"), front())
        }),
        ("reader", "all evaluations", |i, channel, _| {
            let list = pb::ListEvaluationsRequest { search_id: "long".into(), page_size: 1000, ..Default::default() };
            again::<_, pb::ListEvaluationsResponse>(channel, LIST, format!("a{i}"), list)
        }),
        ("reader", "best schedules", |i, channel, _| {
            let best = pb::GetBestScheduleRequest { search_id: "long".into(), ..Default::default() };
            again::<_, pb::GetBestScheduleResponse>(channel, BEST, format!("a{i}"), best)
        }),
        ("reader", "512 watches", |i, channel, _| {
            Box::pin(async move {
                let watch = pb::WatchSearchRequest { search_id: "toy".into() };
                let call = || {
                    let path = "/evocache.v1.SearchService/WatchSearch";
                    unread::<_, pb::WatchSearchResponse>(channel.clone(), path, with(&format!("a{i}"), watch.clone()))
                };
                let held = futures::future::join_all((0..512).map(|_| call())).await;
                std::future::pending::<()>().await;
                drop(held);
            })
        }),
        ("operator", "2 million wrong rungs", |_, channel, _| {
            let mut wrong = spec(0);
            wrong.algorithm = Some(pb::Algorithm { rungs: vec![0; 2_000_000], ..Default::default() });
            let create = pb::CreateSearchRequest { spec: Some(wrong), validate_only: true, ..Default::default() };
            again::<_, pb::CreateSearchResponse>(channel, CREATE, "op".into(), create)
        }),
        ("operator", "a million empty schedules", |_, channel, _| {
            let mut wrong = spec(0);
            wrong.imported = vec![pb::ImportedSchedule::default(); 1_000_000];
            let create = pb::CreateSearchRequest { spec: Some(wrong), validate_only: true, ..Default::default() };
            again::<_, pb::CreateSearchResponse>(channel, CREATE, "op".into(), create)
        }),
        ("worker", "90,000 metrics", |i, channel, _| {
            let mut request = register("toy", layout(4, 3));
            let metric = |i: usize| pb::MetricDeclaration { name: format!("m{i}"), direction: 1, ..Default::default() };
            request.metrics = (0..70_000).map(metric).collect();
            again::<_, pb::RegisterWorkerResponse>(channel, REGISTER, format!("b{i}"), request)
        }),
        ("worker", "results that do not end", |i, channel, _| {
            Box::pin(async move {
                let call = || begun(channel.clone(), COMPLETE, format!("b{i}"), 8 << 20);
                futures::future::join_all((0..256).map(|_| call())).await;
            })
        }),
        ("worker", "the largest layout, measured", |i, channel, _| {
            Box::pin(async move {
                let request = register("large", layout(4, 64));
                let client = WorkerServiceClient::new(channel);
                work(client, &format!("b{i}"), request, u64::MAX, 0).await;
            })
        }),
        ("stranger", "512 silent connections", |_, _, url| {
            Box::pin(async move {
                let address = url.trim_start_matches("http://").to_owned();
                loop {
                    let connect = || tokio::net::TcpStream::connect(address.clone());
                    let held = futures::future::join_all((0..64).map(|_| connect())).await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    drop(held);
                }
            })
        }),
        ("stranger", "wrong tokens", |i, channel, _| {
            let list = pb::ListSearchesRequest::default();
            let path = "/evocache.v1.SearchService/ListSearches";
            again::<_, pb::ListSearchesResponse>(channel, path, format!("guess{i}"), list)
        }),
    ]
}

/// Prints what 64 of each at once cost, and how long somebody honest waits beside them.
///
/// `cargo test --release -p evocache --test cli -- --ignored --nocapture the_worst`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, and prints seconds that are the machine's"]
#[expect(clippy::disallowed_methods, reason = "prints seconds, and holds nothing to them")]
async fn the_worst_that_others_can_cost() {
    const WHILE: Duration = Duration::from_secs(10);
    println!(
        "| 64 of | do at once, for {WHILE:?} | engine works | longest | memory | held | slowest honest answer | of |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (who, what, attacker) in attacks() {
        let folder = tempfile::tempdir().unwrap();
        let coordinator = start(folder.path(), 4096, Stdio::null());
        create(&coordinator, "toy", spec(16)).await.unwrap();
        evaluate(&coordinator, "w", register("toy", layout(4, 3)), 24, 100_000).await;
        let mut long = spec(0);
        long.model = Some(pb::ModelRef { name: "long".into(), fingerprint: None });
        create(&coordinator, "long", long).await.unwrap();
        evaluate(&coordinator, "w", register("long", layout(28, 3)), 800, 0).await;
        let mut large = spec(0);
        large.model = Some(pb::ModelRef { name: "large".into(), fingerprint: None });
        large.sampling.as_mut().unwrap().steps = (985..=1000).rev().collect();
        create(&coordinator, "large", large).await.unwrap();
        let (before, (worked, _)) = (resident(&coordinator), busy(&coordinator));
        let mut honest = SearchServiceClient::new(channel(&coordinator).await);
        let elsewhere = elsewhere();
        for i in 0..64 {
            let url = coordinator.url.clone();
            elsewhere.spawn(async move {
                let channel = Channel::from_shared(url.clone()).unwrap().connect_lazy();
                attacker(i, channel, url).await;
            });
        }
        let (began, mut slowest, mut answers) = (Instant::now(), Duration::ZERO, 0);
        let (mut held, mut largest) = (0.0f64, 0);
        while began.elapsed() < WHILE {
            let asked = Instant::now();
            let get = pb::GetSearchRequest { search_id: "toy".into() };
            honest.get_search(with("honest", get)).await.unwrap();
            let page = honest.get_front(with("honest", front())).await.unwrap().into_inner();
            assert!(!page.evaluations.is_empty());
            (slowest, answers) = (slowest.max(asked.elapsed() / 2), answers + 2);
            let of = |of: &str| metric(&coordinator, &format!("evocache_held_bytes{{of=\"{of}\"}}"));
            (held, largest) = (held.max(of("requests") + of("answers")), largest.max(resident(&coordinator)));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (after, longest) = busy(&coordinator);
        println!(
            "| {who} | {what} | {:.2} s | ≤ {longest} s | {before} → {largest} MiB | {:.0} MiB | {:.0} ms | {answers} |",
            after - worked,
            held / f64::from(1 << 20),
            slowest.as_secs_f64() * 1e3,
        );
        elsewhere.shutdown_background();
    }
}

/// Where the attackers run: what they do to their own machine must not look like what they do to the coordinator's, so
/// everybody else goes before them.
fn elsewhere() -> tokio::runtime::Runtime {
    let yielding = || assert!(rustix::process::nice(19).is_ok());
    tokio::runtime::Builder::new_multi_thread().enable_all().on_thread_start(yielding).build().unwrap()
}

/// A call whose message ends before its beginning is all there; it waits for ever.
async fn begun(channel: Channel, path: &'static str, token: String, bytes: u32) {
    use tower::Service;
    let first = [&[0][..], &bytes.to_be_bytes(), &[0]].concat();
    let mut request = tonic::codegen::http::Request::new(tonic::body::Body::new(Begun(Some(first.into()))));
    *request.uri_mut() = path.parse().unwrap();
    *request.method_mut() = tonic::codegen::http::Method::POST;
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let mut channel = channel;
    if std::future::poll_fn(|cx| channel.poll_ready(cx)).await.is_ok() {
        let _ = channel.call(request).await;
    }
}

struct Begun(Option<Bytes>);

impl http_body::Body for Begun {
    type Data = tonic::codegen::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        match self.0.take() {
            Some(first) => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(first)))),
            None => std::task::Poll::Pending,
        }
    }
}
