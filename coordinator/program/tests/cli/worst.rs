//! What others can cost at the worst, in seconds of the engine, bytes, and the time that somebody honest waits: the table of
//! `LIMITS.md`. What is held to a bound is in `attackers.rs`; this prints what depends on the machine.

use std::marker::PhantomData;
use std::process::Stdio;
use std::time::{Duration, Instant};

use evocache_proto::pb;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use prost::Message;
use prost::bytes::BufMut;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::Bytes;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::attackers::{
    FRONT, Results, channel, create, evaluate, front, layout, metric, register, resident, spec, start, unread, with,
    work,
};
use crate::support::Coordinator;

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

/// A search of many prompts.
const WIDE: &str = "wide";
const PROMPTS: usize = 2000;

fn wide() -> pb::SearchSpec {
    let prompt = |seed| pb::Prompt { text: "an owl".into(), seed };
    pb::SearchSpec {
        model: Some(pb::ModelRef { name: WIDE.into(), fingerprint: None }),
        prompts: (0..PROMPTS as u64).map(prompt).collect(),
        budget: Some(pb::Budget { evaluations: Some(6000), ..Default::default() }),
        ..spec(0)
    }
}

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
        ("operator", "a search of 100 MiB deleted", |_, channel, _| {
            Box::pin(async move {
                let mut client = SearchServiceClient::new(channel);
                let stop = pb::StopSearchRequest { search_id: WIDE.into(), ..Default::default() };
                let delete = pb::DeleteSearchRequest { search_id: WIDE.into(), ..Default::default() };
                // Whoever is not the first is told that it is not there.
                let _ = client.stop_search(with("op", stop)).await;
                let _ = client.delete_search(with("op", delete)).await;
                let create =
                    pb::CreateSearchRequest { search_id: WIDE.into(), spec: Some(wide()), ..Default::default() };
                while client.create_search(with("op", create.clone())).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        }),
        ("operator", "a search extended, again and again", |i, channel, _| {
            Box::pin(async move {
                let mut client = SearchServiceClient::new(channel);
                for more in 1.. {
                    let budget =
                        Some(pb::Budget { evaluations: Some(800 + 64 * more + i as u64), ..Default::default() });
                    let extend = pb::ExtendSearchRequest { search_id: "long".into(), budget, ..Default::default() };
                    // Another may have raised it further.
                    let _ = client.extend_search(with("op", extend)).await;
                }
            })
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
                work(client, &format!("b{i}"), request, Results { most: u64::MAX, prompts: 1, bytes: 0 }).await;
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
/// `cargo test --release -p evocache-program --test cli -- --ignored --nocapture the_worst`
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
        long.budget = Some(pb::Budget { evaluations: Some(800), ..Default::default() });
        create(&coordinator, "long", long).await.unwrap();
        evaluate(&coordinator, "w", register("long", layout(28, 3)), 800, 0).await;
        let mut large = spec(0);
        large.model = Some(pb::ModelRef { name: "large".into(), fingerprint: None });
        large.sampling.as_mut().unwrap().steps = (985..=1000).rev().collect();
        create(&coordinator, "large", large).await.unwrap();
        if what.contains("deleted") {
            create(&coordinator, WIDE, wide()).await.unwrap();
            let worker = WorkerServiceClient::new(channel(&coordinator).await);
            work(worker, "w", register(WIDE, layout(28, 3)), Results { most: 6000, prompts: PROMPTS, bytes: 0 }).await;
        }
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
