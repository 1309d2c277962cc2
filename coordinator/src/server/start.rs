//! Starts a coordinator from its store, engine and services, and stops it in order.
//!
//! It stops in phases: long polls and watches end, no new connection is accepted, running calls get [`DRAIN`] to finish,
//! then the engine flushes and the store is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

use super::connections::{ConnectionLimits, Connections};
use super::error::{Fatal, ServeError};
use super::gate::{Calls, Gate, Limiter};
use super::grpc::{self, Services};
use super::http::{Guard, Http, Parts};
use super::incoming::Incoming;
use super::options::{Security, ServeOptions};
use super::reload::Reloader;
use super::world::{SystemClock, Uuids};
use super::{files, limits};
use crate::engine::{Engine, EnginePanic, ModelFitting, Settings};
use crate::ports::Clock;
use crate::store::ReopeningStore;
use evocache_domain::lease::RetryPolicy;
use evocache_net::tls::{Protocol, Tls, TlsFiles};
use evocache_net::tokens::Tokens;

/// How long running calls may take to finish when the coordinator stops.
pub const DRAIN: Duration = Duration::from_secs(5);

/// A running coordinator.
pub struct Running {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    /// `None` after the server has ended by itself.
    server: Option<JoinHandle<Result<(), tonic::transport::Error>>>,
    engine: Engine,
    http: Option<Http>,
    reloader: Reloader,
    watch: Option<JoinHandle<()>>,
    scheme: &'static str,
}

/// Starts a coordinator: listens, opens the store, recovers, serves.
pub async fn start(options: ServeOptions) -> Result<Running, ServeError> {
    #[cfg(faults)]
    crate::faults::arm()?;
    let security = options.security;
    if security.tls.is_none() && !options.allow_remote_plaintext && !options.listen.ip().is_loopback() {
        return Err(ServeError::Plaintext(options.listen));
    }
    let clock = Arc::new(SystemClock::new());
    let tls = security.tls.clone().map(|files| Tls::read(files, Protocol::Http2, clock.now().0)).transpose()?;
    let limiter = Limiter::new(&security.quotas);
    let tokens = security.tokens.as_deref().map(Tokens::read).transpose()?;
    let gate = Gate::new(tokens, limiter.clone(), clock.clone());
    let certificate_files = security.tls.iter().flat_map(|files| {
        let TlsFiles { certificate, key, client_ca } = files.clone();
        [Some(certificate), Some(key), client_ca].into_iter().flatten()
    });
    let reloader = Reloader::new(
        tls.clone().map(|tls| (tls, certificate_files.collect())),
        security.tokens.clone(),
        gate.clone(),
        clock.clone(),
    );
    let listen = |source| ServeError::Listen { address: options.listen, source };
    // Bound first: a port in use fails at once. Nobody can connect before the state is recovered.
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    // Before the store: while it is read, `/readyz` says that the coordinator is starting.
    let http = match options.http {
        Some(address) => Some(Http::start(address).await.map_err(|source| ServeError::Listen { address, source })?),
        None => None,
    };
    let store = ReopeningStore::open(&options.data, options.reserve, options.accept_loss);
    let store = Arc::new(store.map_err(ServeError::Store)?);
    let policy = RetryPolicy::with_ttl(options.lease_ttl);
    let settings = Settings { store, clock, ids: Arc::new(Uuids), policy, fitting: ModelFitting::Background };
    let engine = Engine::start(settings)?;
    let (stopping, stop) = watch::channel(false);
    let services = Services { engine: engine.handle(), lease_ttl: options.lease_ttl, stopping: stop.clone() };
    let calls = Calls::default();
    let router = grpc::router(grpc::server(), gate.clone(), calls.clone(), services).await?;
    let connection_limits =
        ConnectionLimits { all: files::raise_limit(), each: security.connections, ..Default::default() };
    let connections = Connections::new(connection_limits);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let incoming = Incoming::new(TcpIncoming::from(listener), tls, connections.clone());
    let mut stop = stop;
    let serve = router.serve_with_incoming_shutdown(incoming, async move {
        // An error means that `Running` is gone: that is a stop as well.
        let _ = stop.wait_for(|&stopping| stopping).await;
    });
    #[expect(clippy::disallowed_methods, reason = "joined in `Running::shutdown`")]
    let server = Some(tokio::spawn(serve));
    if let Some(http) = &http {
        let silence = limits::silence(options.lease_ttl);
        let guard = Guard { reloader: reloader.clone(), limiter, gate, connections };
        http.ready(Parts { engine: engine.handle(), calls, silence, guard: Some(guard) });
    }
    let watched = reloader.has_files() && !security.reload_every.is_zero();
    #[expect(clippy::disallowed_methods, reason = "ended and joined in `Running::shutdown`")]
    let watch = watched.then(|| tokio::spawn(reloader.clone().watch(security.reload_every)));
    let connections = connection_limits.all;
    tracing::info!(%address, connections, data = %options.data.display(), "coordinator listens");
    warn_if_open(&address, &security);
    Ok(Running { address, stopping, server, engine, http, reloader, watch, scheme })
}

/// Warns about options that are dangerous on an address that other machines reach.
fn warn_if_open(address: &SocketAddr, security: &Security) {
    if address.ip().is_loopback() {
        return;
    }
    let has_client_ca = security.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    match (&security.tokens, &security.tls) {
        (None, _) if !has_client_ca => {
            tracing::warn!(%address, "anybody who reaches this address may do everything; use --tokens or --client-ca");
        }
        (Some(_), None) => {
            tracing::warn!(%address, "tokens are sent unencrypted, and anybody on the way can read them; use --tls-cert");
        }
        _ => {}
    }
}

impl Running {
    /// The address for gRPC.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The address for health and metrics.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Http::local_addr)
    }

    /// The URL for callers.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Reloads certificates and tokens. If a file is invalid, the log says so and the previous ones stay in use.
    pub fn reload(&self) {
        self.reloader.reload();
    }

    /// Returns when the coordinator cannot go on; the process should then exit with an error.
    pub async fn failed(&mut self) -> Fatal {
        let server = async {
            match &mut self.server {
                Some(server) => server.await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            panic = self.engine.panicked() => return panic.into(),
            ended = server => ended,
        };
        self.server = None;
        Fatal::Server(match ended {
            Ok(Ok(())) => "it was not asked to".into(),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        })
    }

    /// Stops in phases, in little more than [`DRAIN`]. Fails if the engine had panicked.
    pub async fn shutdown(self) -> Result<(), EnginePanic> {
        if let Some(http) = &self.http {
            http.stopping();
        }
        // Without a receiver the server has ended already.
        let _ = self.stopping.send(true);
        if let Some(watch) = self.watch {
            watch.abort();
            // The error is the abort.
            let _ = watch.await;
        }
        if let Some(mut server) = self.server {
            // tonic waits for idle keep-alive connections without end.
            // Without the engine no running call can finish.
            let patience = if self.engine.has_panicked() { Duration::ZERO } else { DRAIN };
            match tokio::time::timeout(patience, &mut server).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(e))) => tracing::error!(error = %e, "the server ended with an error"),
                Ok(Err(e)) => tracing::error!(error = %e, "the server's task failed"),
                Err(_) => {
                    tracing::info!("closing the connections that are still open after {patience:?}");
                    server.abort();
                }
            }
        }
        let engine = self.engine;
        let stopped = tokio::task::spawn_blocking(move || engine.stop()).await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "the engine could not be joined");
            Ok(())
        });
        if let Some(http) = self.http {
            http.stop().await;
        }
        tracing::info!("coordinator stopped");
        stopped
    }
}
