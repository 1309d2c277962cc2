//! What is refused because it is too much: calls in a while, calls at once, connections, bytes.

use std::time::Duration;

use evocache::server::{Quotas, Running, Security, ServeOptions, start};
use evocache_net::tokens::{Role, entry};
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use evocache_proto::{pb, wire};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::codegen::http;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::common::{declaration, draft};
use crate::http::ask;

struct Limited {
    running: Running,
    channel: Channel,
    _folder: tempfile::TempDir,
}

impl Limited {
    async fn start(quotas: Quotas, connections: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens.toml");
        let entries = ["one", "two"].map(|name| entry(name, Role::Admin, name, None)).concat();
        std::fs::write(&tokens, entries).unwrap();
        let running = start(ServeOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            reserve: 0,
            accept_loss: false,
            data: folder.path().join("store"),
            lease_ttl: Duration::from_secs(30),
            allow_remote_plaintext: false,
            http: Some(([127, 0, 0, 1], 0).into()),
            security: Security { tokens: Some(tokens), quotas, connections, ..Security::default() },
        });
        let running = running.await.unwrap();
        let channel = Channel::from_shared(running.url()).unwrap().connect().await.unwrap();
        Self { running, channel, _folder: folder }
    }

    fn searches(&self) -> SearchServiceClient<Channel> {
        SearchServiceClient::new(self.channel.clone()).max_encoding_message_size(64 << 20)
    }

    async fn list(&self, token: &str) -> Result<(), Status> {
        self.searches().list_searches(with(token, pb::ListSearchesRequest::default())).await.map(drop)
    }

    async fn create(&self, id: &str) {
        let create = pb::CreateSearchRequest {
            search_id: id.into(),
            spec: Some((&draft(5)).into()),
            ..pb::CreateSearchRequest::default()
        };
        self.searches().create_search(with("one", create)).await.unwrap();
    }

    async fn value(&self, name: &str) -> u64 {
        let text = ask(self.running.http_addr().unwrap(), "/metrics").await.1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    async fn metric(&self, line: &str) {
        let text = ask(self.running.http_addr().unwrap(), "/metrics").await.1;
        assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
    }
}

fn with<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn refused(status: &Status, code: Code, reason: &str) {
    let told = status.get_details_error_info().map(|info| info.reason);
    assert_eq!((status.code(), told.as_deref()), (code, Some(reason)), "{status}");
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_back_and_others_are_not_held_up() {
    // A second call would be welcome after a second; the test is not that slow, and if it is, it still holds.
    let quotas = Quotas { reads: Some("1:5:9".parse().unwrap()), ..Quotas::DEFAULT };
    let limited = Limited::start(quotas, 100).await;
    let mut outcomes = vec![];
    for _ in 0..50 {
        outcomes.push(limited.list("one").await);
    }
    assert!(outcomes[..5].iter().all(Result::is_ok), "the burst is allowed");
    let refusals: Vec<&Status> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(refusals.len() > 10, "{}", refusals.len());
    for status in &refusals {
        refused(status, Code::ResourceExhausted, "RATE_LIMITED");
        let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2), "{wait:?}");
    }
    limited.list("two").await.unwrap();
    limited.metric(&format!("evocache_rpcs_limited_total{{kind=\"reads\",excess=\"rate\"}} {}", refusals.len())).await;
}

#[tokio::test]
async fn strangers_are_limited_by_address_and_do_not_hold_up_who_has_a_token() {
    let quotas = Quotas { strangers: Some("1:3:9".parse().unwrap()), ..Quotas::DEFAULT };
    let limited = Limited::start(quotas, 100).await;
    let mut reasons = std::collections::BTreeMap::new();
    for guess in 0..40 {
        let status = limited.list(&format!("guess-{guess}")).await.unwrap_err();
        *reasons.entry(status.get_details_error_info().unwrap().reason).or_insert(0) += 1;
    }
    assert!(reasons["TOKEN_UNKNOWN"] >= 3 && reasons["RATE_LIMITED"] > 10, "{reasons:?}");
    limited.list("one").await.unwrap();
}

#[tokio::test]
async fn a_watch_holds_its_place_until_it_ends() {
    let quotas = Quotas { reads: Some("1000:1000:2".parse().unwrap()), ..Quotas::DEFAULT };
    let limited = Limited::start(quotas, 100).await;
    limited.create("toy").await;
    let watch = || async {
        let request = pb::WatchSearchRequest { search_id: "toy".into() };
        let mut stream = limited.searches().watch_search(with("one", request)).await?.into_inner();
        stream.message().await.map(|_| stream)
    };
    let (first, second) = (watch().await.unwrap(), watch().await.unwrap());
    let status = limited.list("one").await.unwrap_err();
    refused(&status, Code::ResourceExhausted, "TOO_MANY_CALLS");
    assert!(status.get_details_retry_info().is_some());
    limited.list("two").await.unwrap();
    drop((first, second));
    let room = async { while limited.list("one").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), room).await.unwrap();
}

#[tokio::test]
async fn a_silent_connection_makes_room_for_another_and_one_in_use_does_not() {
    let limited = Limited::start(Quotas::DEFAULT, 2).await;
    limited.list("one").await.unwrap();
    let mut second = TcpStream::connect(limited.running.local_addr()).await.unwrap();
    let connect = async || Channel::from_shared(limited.running.url()).unwrap().connect().await;
    // The third comes in, in place of the one that has said nothing.
    let third = connect().await.unwrap();
    let mut byte = [0; 64];
    let closed = async { while !matches!(second.read(&mut byte).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(Duration::from_secs(60), closed).await.unwrap();
    limited.create("toy").await;
    let watch = |channel: Channel| async move {
        let request = with("one", pb::WatchSearchRequest { search_id: "toy".into() });
        let mut stream = SearchServiceClient::new(channel).watch_search(request).await.unwrap().into_inner();
        stream.message().await.unwrap();
        stream
    };
    let _watches = (watch(third).await, watch(limited.channel.clone()).await);
    let mut fourth = TcpStream::connect(limited.running.local_addr()).await.unwrap();
    assert!(matches!(fourth.read(&mut byte).await, Ok(0) | Err(_)));
    limited.metric("evocache_connections 2").await;
    limited.metric("evocache_connections_closed_total 1").await;
    limited.metric("evocache_connections_refused_total 1").await;
    drop(_watches);
    let again = async { while connect().await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), again).await.unwrap();
}

#[tokio::test]
async fn what_is_too_many_is_refused_by_its_count_whatever_it_is() {
    let limited = Limited::start(Quotas::DEFAULT, 100).await;
    let told = |status: &Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().len() < 200, "{status}");
        status.get_details_bad_request().unwrap().field_violations[0].field.clone()
    };
    let mut workers = WorkerServiceClient::new(limited.channel.clone()).max_encoding_message_size(64 << 20);
    let metric = |i: usize| pb::MetricDeclaration { name: format!("m{i}"), direction: 1, ..Default::default() };
    let mut register = wire::register_request(String::new(), &declaration("w"));
    register.metrics = (0..80_000).map(metric).collect();
    let status = workers.register_worker(with("one", register)).await.unwrap_err();
    assert_eq!(told(&status), "metrics");

    let spoilt = |spoil: fn(&mut pb::SearchSpec)| {
        let mut spec: pb::SearchSpec = (&draft(5)).into();
        spoil(&mut spec);
        with("one", pb::CreateSearchRequest { spec: Some(spec), validate_only: true, ..Default::default() })
    };
    type Spoil = fn(&mut pb::SearchSpec);
    let spoils: [(Spoil, &str); 5] = [
        (|s| s.objectives = vec![s.objectives[0].clone(); 100_000], "spec.objectives"),
        (|s| s.prompts = vec![pb::Prompt::default(); 1_000_000], "spec.prompts"),
        (|s| s.imported = vec![pb::ImportedSchedule::default(); 1_000_000], "spec.imported"),
        (|s| s.algorithm.as_mut().unwrap().rungs = vec![9; 2_000_000], "spec.algorithm.rungs"),
        (|s| s.sampling.as_mut().unwrap().steps = vec![9; 2_000_000], "spec.sampling.steps"),
    ];
    for (spoil, field) in spoils {
        let status = limited.searches().create_search(spoilt(spoil)).await.unwrap_err();
        assert_eq!(told(&status), field);
    }
    let status = limited.searches().create_search(spoilt(|s| s.prompts = vec![pb::Prompt::default(); 9000])).await;
    let status = status.unwrap_err();
    assert_eq!(status.get_details_bad_request().unwrap().field_violations.len(), 8);
    assert_eq!(status.get_details_error_info().unwrap().metadata["untold_violations"], "8992");
    assert!(status.message().ends_with("; and 8992 more"), "{status}");
}

#[tokio::test]
async fn a_model_that_is_too_much_for_a_search_is_told_so() {
    let limited = Limited::start(Quotas::DEFAULT, 100).await;
    let mut spec: pb::SearchSpec = (&draft(5)).into();
    spec.sampling.as_mut().unwrap().steps = vec![1000];
    let create = pb::CreateSearchRequest { search_id: "large".into(), spec: Some(spec), ..Default::default() };
    limited.searches().create_search(with("one", create)).await.unwrap();
    let mut large = declaration("w");
    large.layout = evocache_proto::domain::Layout::pixart(1365).unwrap();
    let mut workers = WorkerServiceClient::new(limited.channel.clone());
    let request = wire::register_request(String::new(), &large);
    let worker_id = workers.register_worker(with("one", request)).await.unwrap().into_inner().worker_id;
    let acquire = pb::AcquireLeaseRequest { worker_id, wait: None };
    assert!(workers.acquire_lease(with("one", acquire)).await.unwrap().into_inner().lease.is_none());
    let get = pb::GetSearchRequest { search_id: "large".into() };
    let search = limited.searches().get_search(with("one", get)).await.unwrap().into_inner().search.unwrap();
    assert!(search.end_reason.contains("1000 steps") && search.end_reason.contains("4095 slots"), "{search:?}");
}

#[tokio::test]
async fn many_watchers_cost_the_engine_no_more_than_one() {
    let limited = Limited::start(Quotas::DEFAULT, 100).await;
    limited.create("toy").await;
    let mut watches = vec![];
    for _ in 0..100 {
        let request = pb::WatchSearchRequest { search_id: "toy".into() };
        let mut watch = limited.searches().watch_search(with("one", request)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().state(), pb::SearchState::Pending);
        watches.push(watch);
    }
    let before = limited.value("evocache_engine_looks_total").await;
    let stop = pb::StopSearchRequest { search_id: "toy".into(), ..Default::default() };
    limited.searches().stop_search(with("one", stop)).await.unwrap();
    for watch in &mut watches {
        assert_eq!(watch.message().await.unwrap().unwrap().state(), pb::SearchState::Stopped);
        assert_eq!(watch.message().await.unwrap(), None);
    }
    // One look for all of them, one for the answer, one for the metrics.
    let looks = limited.value("evocache_engine_looks_total").await - before;
    assert!(looks <= 5, "{looks}");
}

#[tokio::test]
async fn a_call_that_is_not_heard_to_its_end_takes_no_more_than_it_may() {
    let limited = Limited::start(Quotas::DEFAULT, 100).await;
    // Each says that it brings 8 MiB, sends one byte of them and waits: eight have room, the ninth is not read.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let path = "/evocache.v1.WorkerService/CompleteEvaluation";
        let mut request = http::Request::new(tonic::body::Body::new(Begun { started: false }));
        *request.uri_mut() = format!("{}{path}", limited.running.url()).parse().unwrap();
        *request.method_mut() = http::Method::POST;
        request.headers_mut().insert("authorization", "Bearer one".parse().unwrap());
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let mut channel = limited.channel.clone();
        calls.spawn(async move {
            use tower::Service;
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await.unwrap();
            channel.call(request).await
        });
    }
    let full = async {
        while limited.value("evocache_held_bytes{of=\"requests\"}").await < 64 << 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), full).await.unwrap();
    assert_eq!(limited.value("evocache_held_bytes{of=\"requests\"}").await, 64 << 20);
    limited.list("two").await.unwrap();
    drop(calls);
}

/// A message of 8 MiB of which one byte comes.
struct Begun {
    started: bool,
}

impl http_body::Body for Begun {
    type Data = tonic::codegen::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<tonic::codegen::Bytes>, Status>>> {
        if std::mem::replace(&mut self.started, true) {
            return std::task::Poll::Pending;
        }
        let mut bytes = vec![0];
        bytes.extend((8u32 << 20).to_be_bytes());
        bytes.push(0);
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(bytes.into()))))
    }
}

#[tokio::test]
async fn a_message_is_refused_by_its_length_and_each_call_has_its_own() {
    let limited = Limited::start(Quotas::DEFAULT, 100).await;
    let long = |bytes: usize| "x".repeat(bytes);
    // 12 MiB are for measurements; an id needs no more than 64 KiB.
    let get = pb::GetSearchRequest { search_id: long(70_000) };
    let status = limited.searches().get_search(with("one", get)).await.unwrap_err();
    refused(&status, Code::OutOfRange, "MESSAGE_TOO_LARGE");
    let get = pb::GetSearchRequest { search_id: long(60_000) };
    let status = limited.searches().get_search(with("one", get)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "it was read, and is no id");
    let mut workers = WorkerServiceClient::new(limited.channel.clone()).max_encoding_message_size(64 << 20);
    let register = pb::RegisterWorkerRequest { name: long(2 << 20), ..pb::RegisterWorkerRequest::default() };
    let status = workers.register_worker(with("one", register)).await.unwrap_err();
    refused(&status, Code::OutOfRange, "MESSAGE_TOO_LARGE");
    let complete = |bytes| {
        let measurement = pb::Measurement { thumbnails: vec![vec![0; bytes].into()], ..pb::Measurement::default() };
        let lease = pb::LeaseRef { search_ref: "s~u".into(), candidate: 0, epoch: 1 };
        let (measurement, lease) = (Some(measurement), Some(lease));
        pb::CompleteEvaluationRequest { worker_id: "w".into(), lease, measurement, ..Default::default() }
    };
    let status = workers.complete_evaluation(with("one", complete(8 << 20))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "it was read, and there is no such worker");
    let status = workers.complete_evaluation(with("one", complete(13 << 20))).await.unwrap_err();
    refused(&status, Code::OutOfRange, "MESSAGE_TOO_LARGE");
}
