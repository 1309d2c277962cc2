//! What is refused because it is too much: calls in a while, calls at once, connections, bytes.

use std::time::Duration;

use evocache::serve::{Quotas, Running, Security, ServeOptions, start};
use evocache::tokens::{Role, entry};
use evocache_proto::pb;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use evocache_proto::pb::worker_service_client::WorkerServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::common::draft;
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
    let create = pb::CreateSearchRequest {
        search_id: "toy".into(),
        spec: Some((&draft(5)).into()),
        ..pb::CreateSearchRequest::default()
    };
    limited.searches().create_search(with("one", create)).await.unwrap();
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
async fn an_address_has_no_more_than_its_connections() {
    let limited = Limited::start(Quotas::DEFAULT, 2).await;
    let second = TcpStream::connect(limited.running.local_addr()).await.unwrap();
    let mut third = TcpStream::connect(limited.running.local_addr()).await.unwrap();
    let mut byte = [0];
    // Closed at once; the others go on.
    assert!(matches!(third.read(&mut byte).await, Ok(0) | Err(_)));
    limited.list("one").await.unwrap();
    limited.metric("evocache_connections 2").await;
    limited.metric("evocache_connections_refused_total 1").await;
    drop(second);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(limited.running.local_addr()).await.unwrap();
            // Whoever is taken gets the server's settings.
            let preface = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
            if preface.is_ok() && matches!(stream.read(&mut byte).await, Ok(1)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.unwrap();
}

#[tokio::test]
async fn a_message_is_refused_by_its_length_and_each_call_has_its_own() {
    let limited = Limited::start(Quotas::DEFAULT, 100).await;
    let long = |bytes: usize| "x".repeat(bytes);
    // 16 MiB are for measurements; an id needs no more than 64 KiB.
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
    let status = workers.complete_evaluation(with("one", complete(17 << 20))).await.unwrap_err();
    refused(&status, Code::OutOfRange, "MESSAGE_TOO_LARGE");
}
