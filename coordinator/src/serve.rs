//! Puts store, engine and services together into a running coordinator, and takes them apart in order.
//!
//! Stopping goes in phases: long polls and watches end, no new connection is taken, calls that run get
//! [`DRAIN`] to finish, then the engine writes what it has and the store is closed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evocache_net::credentials::CredentialError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

use crate::api::{self, Calls, ConnectionLimits, Connections, Gate, Incoming, Limiter, Services, Tls};
use crate::engine::{Engine, EngineError, EnginePanic, ModelFitting, Settings};
use crate::http::{Guard, Http, Parts};
use crate::ports::{Clock, IdSource, StoreError};
use crate::reload::Reloader;
use crate::store::{LOSS_HINT, RESTORE_HINT, ReopeningStore, format_hint};
use crate::tokens::{Tokens, TokensError};
use evocache_domain::lease::RetryPolicy;
use evocache_domain::time::Timestamp;

pub use crate::api::limits::CONNECTIONS_PER_ADDRESS;
pub use crate::api::{Allowance, Quotas, TlsFiles};

/// How long running calls may take to finish when the coordinator stops.
pub const DRAIN: Duration = Duration::from_secs(5);

/// How a coordinator is run.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The store's folder.
    pub data: PathBuf,
    /// Bytes that are to stay free on the store's disk; 0: what happens when it is full is left to chance.
    pub reserve: u64,
    /// Go on with what a store still has of what it acknowledged, instead of refusing it.
    pub accept_loss: bool,
    /// How long a lease lives without renewal.
    pub lease_ttl: Duration,
    /// Listen on an address that other machines reach, although nothing is encrypted.
    pub allow_remote_plaintext: bool,
    /// Where operators ask for health and metrics; port 0 takes a free one.
    pub http: Option<SocketAddr>,
    /// Whom to let in.
    pub security: Security,
}

/// Whom a coordinator lets in; by default everybody who can reach it.
#[derive(Debug, Clone)]
pub struct Security {
    /// Speak TLS.
    pub tls: Option<TlsFiles>,
    /// Ask for a token of this file.
    pub tokens: Option<PathBuf>,
    /// Look at these files this often, and read those again that have changed; zero: only when asked to.
    pub reload_every: Duration,
    /// What each principal may ask.
    pub quotas: Quotas,
    /// Connections from one address.
    pub connections: usize,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            tls: None,
            tokens: None,
            reload_every: Duration::from_secs(10),
            quotas: Quotas::DEFAULT,
            connections: CONNECTIONS_PER_ADDRESS,
        }
    }
}

/// Why a coordinator does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Other machines could read and change everything.
    #[error("{0} is reachable from other machines, and this coordinator does not encrypt")]
    Plaintext(SocketAddr),
    /// A certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] CredentialError),
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The services cannot be described.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A fault that a test asks for cannot be read.
    #[cfg(faults)]
    #[error(transparent)]
    Fault(#[from] crate::faults::FaultError),
}

impl ServeError {
    /// The way out, if there is an obvious one.
    pub fn hint(&self) -> Option<String> {
        let store = match self {
            Self::Listen { source, address } if source.kind() == std::io::ErrorKind::AddrInUse => {
                return Some(format!(
                    "another program (perhaps another coordinator) listens on port {}; choose another port, or any free \
                     one with {}:0 for --listen or --http",
                    address.port(),
                    address.ip()
                ));
            }
            Self::Plaintext(_) => {
                return Some(
                    "encrypt with --tls-cert and --tls-key, listen on 127.0.0.1 and use a tunnel, or pass \
                     --allow-remote-plaintext on a network you trust"
                        .into(),
                );
            }
            Self::Tls(e) => return Some(e.hint().to_owned()),
            Self::Tokens(_) => return Some("`evocache token new` makes an entry, as the file wants it".into()),
            Self::Listen { .. } | Self::Reflection(_) => return None,
            #[cfg(faults)]
            Self::Fault(_) => return None,
            Self::Store(e) | Self::Engine(EngineError::Store(e)) => e,
            Self::Engine(EngineError::Inconsistent(_)) => return Some(RESTORE_HINT.into()),
            Self::Engine(EngineError::Thread(_)) => return None,
        };
        match store {
            StoreError::Locked { .. } => {
                Some("stop the other coordinator, or give this one another --data folder".into())
            }
            StoreError::Foreign { .. } => Some("give an empty or new folder with --data".into()),
            StoreError::Version { found, supported, .. } => Some(format_hint(*found, *supported).into()),
            StoreError::Corrupt { .. } | StoreError::Torn { .. } => Some(
                "restore a backup into an empty folder with `evocache store restore`, or give another --data folder"
                    .into(),
            ),
            StoreError::Lost { .. } | StoreError::Unmarked { .. } => Some(LOSS_HINT.into()),
            StoreError::SetAside { path, aside } => Some(format!("rename {aside} to {path}")),
            StoreError::Failed(_) => Some("look at free space and permissions of the --data folder".into()),
        }
    }
}

/// Why a coordinator that ran cannot go on. What was answered is on disk.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The engine panicked.
    #[error(transparent)]
    Engine(#[from] EnginePanic),
    /// No more calls are taken.
    #[error("the gRPC server ended: {0}")]
    Server(String),
}

/// A coordinator that runs.
pub struct Running {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    /// Gone once it has ended by itself.
    server: Option<JoinHandle<Result<(), tonic::transport::Error>>>,
    engine: Engine,
    http: Option<Http>,
    reloader: Reloader,
    watch: Option<JoinHandle<()>>,
    scheme: &'static str,
}

/// How a coordinator tries candidates again.
pub(crate) fn retry_policy(ttl: Duration) -> RetryPolicy {
    RetryPolicy { max_attempts: 5, base: Duration::from_secs(1), cap: Duration::from_secs(60), ttl }
}

/// Starts a coordinator: opens the store, recovers, listens.
pub async fn start(options: ServeOptions) -> Result<Running, ServeError> {
    #[cfg(faults)]
    crate::faults::arm()?;
    let security = options.security;
    if security.tls.is_none() && !options.allow_remote_plaintext && !api::is_loopback(&options.listen) {
        return Err(ServeError::Plaintext(options.listen));
    }
    let clock = Arc::new(SystemClock::new());
    let tls = security.tls.clone().map(|files| Tls::read(files, clock.now())).transpose()?;
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
    // Bound first: a port in use is told at once, and nobody can connect before the state is there.
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    // Before the store: whoever asks while it is read is told that the coordinator is starting.
    let http = match options.http {
        Some(address) => Some(Http::start(address).await.map_err(|source| ServeError::Listen { address, source })?),
        None => None,
    };
    let store = ReopeningStore::open(&options.data, options.reserve, options.accept_loss);
    let store = Arc::new(store.map_err(ServeError::Store)?);
    let policy = retry_policy(options.lease_ttl);
    let settings = Settings { store, clock, ids: Arc::new(Uuids), policy, fitting: ModelFitting::Background };
    let engine = Engine::start(settings)?;
    let (stopping, stop) = watch::channel(false);
    let services = Services { engine: engine.handle(), lease_ttl: options.lease_ttl, stopping: stop.clone() };
    let calls = Calls::default();
    let router = api::router(api::server(), gate.clone(), calls.clone(), services).await?;
    let connection_limits =
        ConnectionLimits { all: api::raise_limit(), each: security.connections, ..Default::default() };
    let connections = Connections::new(connection_limits);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let incoming = Incoming::new(TcpIncoming::from(listener), tls, connections.clone());
    let mut stop = stop;
    let serve = router.serve_with_incoming_shutdown(incoming, async move {
        // An error means that `Running` is gone: stop as well.
        let _ = stop.wait_for(|&stopping| stopping).await;
    });
    #[expect(clippy::disallowed_methods, reason = "joined in `Running::shutdown`")]
    let server = Some(tokio::spawn(serve));
    if let Some(http) = &http {
        let silence = api::silence(options.lease_ttl);
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

/// Tells of what was asked for and is dangerous all the same.
fn warn_if_open(address: &SocketAddr, security: &Security) {
    if api::is_loopback(address) {
        return;
    }
    let has_client_ca = security.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    match (&security.tokens, &security.tls) {
        (None, _) if !has_client_ca => {
            tracing::warn!(%address, "whoever reaches this address may do everything; use --tokens or --client-ca");
        }
        (Some(_), None) => {
            tracing::warn!(%address, "tokens come unencrypted, for anybody on the way to read; use --tls-cert");
        }
        _ => {}
    }
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where operators ask.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Http::local_addr)
    }

    /// The address as callers write it.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Reads certificates and tokens again. If one is wrong, the log says so and what was in use stays.
    pub fn reload(&self) {
        self.reloader.reload();
    }

    /// Returns when the coordinator cannot go on by itself: the process is to end with an error.
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
            Ok(Ok(())) => "nobody asked it to".into(),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        })
    }

    /// Stops in phases; never takes much longer than [`DRAIN`]. An error if the engine had panicked.
    pub async fn shutdown(self) -> Result<(), EnginePanic> {
        if let Some(http) = &self.http {
            http.stopping();
        }
        // No receiver means that the server has ended already.
        let _ = self.stopping.send(true);
        if let Some(watch) = self.watch {
            watch.abort();
            // An error is the end that was asked for.
            let _ = watch.await;
        }
        if let Some(mut server) = self.server {
            // tonic waits for idle keep-alive connections without end: the limit is ours.
            // Nothing that runs can finish without the engine.
            let patience = if self.engine.has_panicked() { Duration::ZERO } else { DRAIN };
            match tokio::time::timeout(patience, &mut server).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(e))) => tracing::error!(error = %e, "the server ended with an error"),
                Ok(Err(e)) => tracing::error!(error = %e, "the server's task failed"),
                Err(_) => {
                    tracing::info!("connections still open after {patience:?} are cut");
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

/// Wall-clock time at the start, monotonic from then on: a clock that is set back expires no lease.
struct SystemClock {
    start: Timestamp,
    since: std::time::Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn new() -> Self {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { start: Timestamp(0).plus(wall), since: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.start.plus(self.since.elapsed())
    }
}

struct Uuids;

impl IdSource for Uuids {
    #[expect(clippy::disallowed_methods, reason = "this is the source of identifiers")]
    fn unique(&self) -> String {
        uuid::Uuid::now_v7().to_string()
    }
}
