//! The agent sends its token, over TLS, to a coordinator with a trusted certificate, and to no other.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evocache_net::credentials::{CredentialSources, Credentials};
use evocache_proto::pb;
use evocache_worker::agent::{self, AgentConfig, AgentError, Ended};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::task::JoinSet;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::puppet::puppet;
use crate::script::{Coordinator, PATIENCE};

/// A server with a certificate, and the file with the authority that signed it.
fn server(folder: &Path) -> (Server, PathBuf) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let identity = Identity::from_pem(certificate.pem(), key.serialize_pem());
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    (Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap(), ca)
}

fn run(
    coordinator: &Coordinator,
    ca: PathBuf,
    token: &str,
    connect_timeout: Duration,
) -> JoinSet<Result<Ended, AgentError>> {
    let sources = CredentialSources { ca: Some(ca), token: Some(token.into()), ..CredentialSources::default() };
    let config = AgentConfig {
        credentials: Credentials::read(&sources).unwrap(),
        connect_timeout,
        ..AgentConfig::new(coordinator.url().replace("http://", "https://"))
    };
    let mut agent = JoinSet::new();
    agent.spawn(agent::run(config, puppet(false).0, pending()));
    agent
}

#[tokio::test]
async fn a_coordinator_that_is_trusted_gets_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let (server, ca) = server(folder.path());
    let mut coordinator = Coordinator::new();
    coordinator.start_with(server, Some("Bearer hush"));
    let _agent = run(&coordinator, ca, "hush", PATIENCE);
    let answer = pb::RegisterWorkerResponse { worker_id: "w1".into(), lease_ttl: None, max_wait: None };
    coordinator.register_worker.next().await.answer(Ok(answer));
    assert_eq!(coordinator.acquire_lease.next().await.request.worker_id, "w1");
}

#[tokio::test]
async fn a_worker_with_another_token_ends_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (server, ca) = server(folder.path());
    let mut coordinator = Coordinator::new();
    coordinator.start_with(server, Some("Bearer hush"));
    let mut agent = run(&coordinator, ca, "loud", PATIENCE);
    let ended = agent.join_next().await.unwrap().unwrap();
    let Err(error @ AgentError::Denied { .. }) = ended else { panic!("access must be denied") };
    assert!(error.to_string().contains("another token") && !error.to_string().contains("loud"), "{error}");
}

#[tokio::test]
async fn a_coordinator_that_is_not_trusted_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _) = server(folder.path());
    let other = tempfile::tempdir().unwrap();
    let (_, ca) = self::server(other.path());
    let mut coordinator = Coordinator::new();
    coordinator.start_with(server, None);
    // The first failure comes at once; during the rest of the time the agent retries.
    let ended = run(&coordinator, ca, "hush", Duration::from_secs(2)).join_next().await.unwrap().unwrap();
    let Err(error @ AgentError::Unreachable { .. }) = ended else { panic!("it must not be trusted") };
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    assert!(coordinator.register_worker.is_empty());
}
