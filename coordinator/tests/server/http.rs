//! What operators ask over HTTP, of a real coordinator: health, readiness, metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evocache::ports::{Cleared, Fact, Store, StoreError};
use evocache::server::{Calls, Http, Parts, ServeOptions, start};
use evocache::store::MemoryStore;
use evocache_proto::domain::{CandidateId, SearchId};
use evocache_proto::pb;
use evocache_proto::pb::search_service_client::SearchServiceClient;

use crate::common::world;

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The status and the body.
pub(crate) async fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let path = path.to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let answer = answer.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A memory store whose flush can be made to fail.
#[derive(Default)]
struct Failing(MemoryStore, AtomicBool);

impl Store for Failing {
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        self.0.replay(each)
    }
    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        self.0.commit(facts)
    }
    fn sync(&self) -> Result<(), StoreError> {
        if self.1.load(Ordering::SeqCst) { Err(StoreError::Failed("no space".into())) } else { Ok(()) }
    }
    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        self.0.clear(search)
    }
    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        self.0.thumbnails(search, candidate)
    }
}

#[tokio::test]
async fn a_coordinator_is_ready_while_it_takes_work() {
    let store = Arc::new(Failing::default());
    let http = Http::start(any()).await.unwrap();
    let at = http.local_addr();
    assert_eq!(ask(at, "/readyz").await, (503, "starting".into()));
    assert_eq!(ask(at, "/metrics").await.0, 503);
    assert_eq!(ask(at, "/healthz").await.0, 200);

    let world = world(store.clone(), 0);
    http.ready(Parts {
        engine: world.handle.clone(),
        calls: Calls::default(),
        silence: Duration::from_secs(60),
        guard: None,
    });
    assert_eq!(ask(at, "/readyz").await, (200, "ready\n".into()));
    let worker = world.register("w").await;
    world.create("s", 10).await;
    world.work(&worker, 4).await;
    let held = world.offer(&worker).await.unwrap();
    world.clock.advance(Duration::from_secs(31));
    world.tick().await;
    let (status, text) = ask(at, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "evocache_ready 1",
        "evocache_evaluations_total{outcome=\"accepted\"} 4",
        "evocache_leases_granted_total 5",
        "evocache_leases_expired_total 1",
        "evocache_workers{state=\"alive\"} 1",
        "evocache_searches{phase=\"running\"} 1",
        "evocache_candidates_open{state=\"pending\"} 1",
        "evocache_evaluations_wanted 6",
        "evocache_store_broken 0",
        "evocache_engine_queue_length 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
    }
    assert!(!text.contains("flush_duration_seconds_count 0"), "{text}");

    // Late, and still a measurement.
    world.complete(&worker, &held.lease, &held.schedule).await;
    store.1.store(true, Ordering::SeqCst);
    let command = evocache::engine::Command::Drain { worker };
    assert!(world.handle.command(None, command).await.is_err());
    // The engine alone holds it from here on, as in a coordinator.
    drop(store);
    assert_eq!(ask(at, "/readyz").await.0, 503);
    assert_eq!(ask(at, "/healthz").await.0, 503);
    assert!(ask(at, "/metrics").await.1.contains("evocache_store_broken 1"));
    world.engine.stop().unwrap();
    assert_eq!(ask(at, "/readyz").await, (503, "the engine has stopped".into()));
    http.stopping();
    assert_eq!(ask(at, "/readyz").await, (503, "stopping".into()));
    http.stop().await;
    assert!(TcpStream::connect(at).is_err());
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let folder = tempfile::tempdir().unwrap();
    let options = ServeOptions {
        listen: any(),
        reserve: 0,
        accept_loss: false,
        data: folder.path().join("store"),
        lease_ttl: Duration::from_secs(30),
        allow_remote_plaintext: false,
        http: Some(any()),
        security: evocache::server::Security::default(),
    };
    let running = start(options).await.unwrap();
    let at = running.http_addr().unwrap();
    let url = format!("http://{}", running.local_addr());
    let mut client = SearchServiceClient::connect(url).await.unwrap();
    client.list_searches(pb::ListSearchesRequest::default()).await.unwrap();
    let nothing = pb::GetSearchRequest { search_id: "none".into() };
    client.get_search(nothing).await.unwrap_err();
    let (_, text) = ask(at, "/metrics").await;
    for line in [
        "evocache_rpcs_total{method=\"SearchService/ListSearches\",code=\"Ok\"} 1",
        "evocache_rpcs_total{method=\"SearchService/GetSearch\",code=\"NotFound\"} 1",
        "evocache_rpc_duration_seconds_count{method=\"SearchService/GetSearch\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
    }
    drop(client);
    running.shutdown().await.unwrap();
    assert!(TcpStream::connect(at).is_err());
}
