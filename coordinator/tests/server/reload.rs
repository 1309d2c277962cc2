//! Certificates that are read again while a coordinator runs.

use std::path::Path;
use std::time::Duration;

use evocache::server::{Running, Security, ServeOptions, TlsFiles, start};
use evocache_proto::pb;
use evocache_proto::pb::search_service_client::SearchServiceClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error};

use crate::http::ask;
use evocache_testkit::certificates::Authority;

fn options(folder: &Path, reload_every: Duration) -> ServeOptions {
    let files = TlsFiles { certificate: folder.join("server.pem"), key: folder.join("server.key"), client_ca: None };
    ServeOptions {
        reserve: 0,
        accept_loss: false,
        listen: ([127, 0, 0, 1], 0).into(),
        data: folder.join("store"),
        lease_ttl: Duration::from_secs(30),
        allow_remote_plaintext: false,
        http: Some(([127, 0, 0, 1], 0).into()),
        security: Security { tls: Some(files), reload_every, ..Security::default() },
    }
}

async fn encrypted(folder: &Path, reload_every: Duration) -> Running {
    start(options(folder, reload_every)).await.unwrap()
}

/// A new connection by whoever trusts this authority alone.
async fn connect(running: &Running, authority: &Authority) -> Result<Channel, Error> {
    let ca = Certificate::from_pem(std::fs::read(&authority.file).unwrap());
    let endpoint = Endpoint::from_shared(running.url()).unwrap();
    endpoint.tls_config(ClientTlsConfig::new().ca_certificate(ca)).unwrap().connect().await
}

async fn list(channel: Channel) {
    SearchServiceClient::new(channel).list_searches(pb::ListSearchesRequest::default()).await.unwrap();
}

#[tokio::test]
async fn new_connections_get_the_new_certificate_and_open_ones_live_on() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(folder.path(), "first"), Authority::new(folder.path(), "second"));
    first.sign_until(folder.path(), "server", 2090);
    let running = encrypted(folder.path(), Duration::ZERO).await;
    let at = running.http_addr().unwrap();
    let open = connect(&running, &first).await.unwrap();
    list(open.clone()).await;

    second.sign_until(folder.path(), "server", 2091);
    list(connect(&running, &first).await.unwrap()).await;
    running.reload();
    list(connect(&running, &second).await.unwrap()).await;
    assert!(connect(&running, &first).await.is_err(), "the certificate of before is still shown");
    list(open).await;
    let text = ask(at, "/metrics").await.1;
    // 2091-01-01, as `date -d 2091-01-01Z +%s` says it.
    for line in [
        "evocache_tls_certificate_expiry_timestamp_seconds{file=\"certificate\"} 3818448000",
        "evocache_reload_failures_total{files=\"certificates\"} 0",
        "evocache_reload_last_successful{files=\"certificates\"} 1",
        "evocache_tls_handshakes_failed_total 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
    }

    let key = std::fs::read(folder.path().join("server.key")).unwrap();
    first.sign(folder.path(), "server");
    std::fs::write(folder.path().join("server.key"), key).unwrap();
    running.reload();
    list(connect(&running, &second).await.unwrap()).await;
    let text = ask(at, "/metrics").await.1;
    for line in [
        "evocache_tls_certificate_expiry_timestamp_seconds{file=\"certificate\"} 3818448000",
        "evocache_reload_failures_total{files=\"certificates\"} 1",
        "evocache_reload_last_successful{files=\"certificates\"} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "no '{line}' in\n{text}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_has_changed_is_read_without_being_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(folder.path(), "first"), Authority::new(folder.path(), "second"));
    first.sign(folder.path(), "server");
    let running = encrypted(folder.path(), Duration::from_millis(5)).await;
    list(connect(&running, &first).await.unwrap()).await;
    second.sign(folder.path(), "server");
    let changed = async {
        while connect(&running, &second).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), changed).await.unwrap();
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused_at_the_start_and_on_reload() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "authority");
    authority.sign_until(folder.path(), "server", 2001);
    let error = start(options(folder.path(), Duration::ZERO)).await.err().unwrap();
    assert!(error.to_string().contains("server.pem' expired"), "{error}");
    assert!(error.hint().unwrap().contains("renew it"));

    authority.sign(folder.path(), "server");
    let running = encrypted(folder.path(), Duration::ZERO).await;
    authority.sign_until(folder.path(), "server", 2001);
    running.reload();
    list(connect(&running, &authority).await.unwrap()).await;
    let text = ask(running.http_addr().unwrap(), "/metrics").await.1;
    assert!(text.contains("evocache_reload_last_successful{files=\"certificates\"} 0"), "{text}");
    running.shutdown().await.unwrap();
}
