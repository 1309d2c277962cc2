//! What a stranger gets: every call, with no certificate, a wrong one, an expired one, and with tokens that are missing,
//! unknown, expired or another role's. The three first end before there is any call: TLS says why.

use std::sync::Arc;
use std::time::Duration;

use evocache::server::{Quotas, Running, Security, ServeOptions, TlsFiles, start};
use evocache_net::tokens::{Role, entry};
use evocache_proto::pb;
use prost::Message;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error, RootCertStore};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use tonic_types::StatusExt;

use evocache_testkit::certificates::Authority;

/// `in`: the call was let through, and a service answered. Written by hand.
const EXPECTED: &str = "\
call                                  no-certificate      wrong-authority expired-certificate no-token         unknown-token    expired-token    worker-token
SearchService/CreateSearch            CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/GetSearch               CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/ListSearches            CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/PauseSearch             CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/ResumeSearch            CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/ExtendSearch            CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/StopSearch              CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/DeleteSearch            CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/WatchSearch             CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/ListEvaluations         CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/GetFront                CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
SearchService/GetBestSchedule         CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
WorkerService/RegisterWorker          CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
WorkerService/GetCalibration          CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
WorkerService/AcquireLease            CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
WorkerService/RenewLeases             CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
WorkerService/CompleteEvaluation      CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
WorkerService/FailEvaluation          CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
WorkerService/ReleaseLease            CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
WorkerService/DeregisterWorker        CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
FleetService/ListWorkers              CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
FleetService/GetWorker                CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
FleetService/DrainWorker              CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
StoreService/BackUpStore              CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
Health/Check                          CertificateRequired UnknownCA       CertificateExpired  in               in               in               in
ServerReflection/ServerReflectionInfo CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED in
SearchService/NoSuchCall              CertificateRequired UnknownCA       CertificateExpired  16-TOKEN_MISSING 16-TOKEN_UNKNOWN 16-TOKEN_EXPIRED 7-ROLE_NEEDED
";

struct Guarded {
    running: Running,
    folder: tempfile::TempDir,
    authority: Authority,
}

/// The files of a certificate and its key.
type Pair = (String, String);

impl Guarded {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "authority");
        let (certificate, key) = authority.sign(folder.path(), "server");
        let tokens = entry("past", Role::Admin, "expired", Some("2020-01-01T00:00:00Z"))
            + &entry("gpu", Role::Worker, "worker", None);
        std::fs::write(folder.path().join("tokens.toml"), tokens).unwrap();
        let security = Security {
            tls: Some(TlsFiles {
                certificate: certificate.into(),
                key: key.into(),
                client_ca: Some(authority.file.clone().into()),
            }),
            tokens: Some(folder.path().join("tokens.toml")),
            // All of these strangers have one address.
            quotas: Quotas { strangers: None, ..Quotas::DEFAULT },
            ..Security::default()
        };
        let running = start(ServeOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            reserve: 0,
            accept_loss: false,
            data: folder.path().join("store"),
            lease_ttl: Duration::from_secs(30),
            allow_remote_plaintext: false,
            http: None,
            security,
        });
        Self { running: running.await.unwrap(), folder, authority }
    }

    fn endpoint(&self, shown: Option<&Pair>) -> Endpoint {
        let ca = Certificate::from_pem(std::fs::read(&self.authority.file).unwrap());
        let mut tls = ClientTlsConfig::new().ca_certificate(ca);
        if let Some((certificate, key)) = shown {
            let (certificate, key) = (std::fs::read(certificate).unwrap(), std::fs::read(key).unwrap());
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        Endpoint::from_shared(self.running.url()).unwrap().tls_config(tls).unwrap()
    }

    /// What TLS says to whoever shows this.
    async fn alert(&self, shown: Option<&Pair>) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.authority.file).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match shown {
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.running.local_addr()).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(Error::AlertReceived(alert)) => format!("{alert:?}"),
            _ => panic!("no alert: {error}"),
        }
    }
}

/// Calls with an empty message.
async fn call(channel: Channel, path: &str, token: Option<&str>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
    let mut request = Request::new(());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    grpc.unary(request, PathAndQuery::try_from(path).unwrap(), codec).await.map(drop)
}

fn paths() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().flat_map(|file| &file.service);
    let ours = services.flat_map(|s| s.method.iter().map(move |m| format!("/evocache.v1.{}/{}", s.name(), m.name())));
    let others = [
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/evocache.v1.SearchService/NoSuchCall",
    ];
    ours.chain(others.map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_stranger_gets_nothing_and_is_told_why() {
    let guarded = Guarded::start().await;
    let good = guarded.authority.sign(guarded.folder.path(), "caller");
    let wrong = Authority::new(guarded.folder.path(), "other").sign(guarded.folder.path(), "stranger");
    let former = guarded.authority.sign_until(guarded.folder.path(), "former", 2020);
    let channel = guarded.endpoint(Some(&good)).connect().await.unwrap();
    let mut table = vec![];
    for path in paths() {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
        let mut row = vec![format!("{}/{method}", service.rsplit('.').next().unwrap())];
        for shown in [None, Some(&wrong), Some(&former)] {
            // Neither does a call come through, nor does anybody learn whether there is such a call.
            let lazy = guarded.endpoint(shown).connect_lazy();
            let status = call(lazy, &path, Some("worker")).await.unwrap_err();
            assert!(std::error::Error::source(&status).is_some(), "a service has answered: {status}");
            row.push(guarded.alert(shown).await);
        }
        for token in [None, Some("never-seen"), Some("expired"), Some("worker")] {
            let status = call(channel.clone(), &path, token).await.err();
            let reason = |s: &Status| s.get_details_error_info().map(|info| info.reason).unwrap_or_default();
            row.push(match status.map(|s| (s.code() as i32, reason(&s))) {
                Some((code @ (7 | 16), reason)) => format!("{code}-{reason}"),
                _ => "in".to_owned(),
            });
        }
        table.push(row);
    }
    let expected: Vec<Vec<&str>> = EXPECTED.lines().map(|line| line.split_whitespace().collect()).collect();
    let mut widths = vec![0; expected[0].len()];
    for row in &table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in &table {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join(" ").trim_end());
    }
    let mut expected = expected[1..].to_vec();
    // The services come in the order of their files, which is nobody's business.
    expected.sort_unstable();
    table.sort_unstable();
    assert_eq!(table, expected);
    guarded.running.shutdown().await.unwrap();
}
