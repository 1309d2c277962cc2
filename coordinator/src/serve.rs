//! Puts store, engine and services together into a running coordinator, and takes them apart in order.
//!
//! Stopping goes in phases: long polls and watches end, no new connection is taken, calls that run get
//! [`DRAIN`] to finish, then the engine writes what it has and the store is closed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

use crate::api::{self, Services};
use crate::domain::lease::RetryPolicy;
use crate::domain::time::Timestamp;
use crate::engine::{Engine, EngineError, Settings};
use crate::ports::{Clock, IdSource, StoreError};
use crate::store::SledStore;

/// How long running calls may take to finish when the coordinator stops.
pub const DRAIN: Duration = Duration::from_secs(5);

/// How a coordinator is run.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The store's folder.
    pub data: PathBuf,
    /// How long a lease lives without renewal.
    pub lease_ttl: Duration,
    /// Listen on an address that other machines reach, although nothing is encrypted.
    pub allow_remote_plaintext: bool,
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
    /// The store cannot be opened.
    #[error(transparent)]
    Store(StoreError),
    /// The engine cannot start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The services cannot be described.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl ServeError {
    /// The way out, if there is an obvious one.
    pub fn hint(&self) -> Option<String> {
        let store = match self {
            Self::Listen { source, address } if source.kind() == std::io::ErrorKind::AddrInUse => {
                return Some(format!(
                    "another program (perhaps another coordinator) listens on port {}; choose a port with --listen {}:0",
                    address.port(),
                    address.ip()
                ));
            }
            Self::Plaintext(_) => {
                return Some(
                    "listen on 127.0.0.1 and use a tunnel, or pass --allow-remote-plaintext on a network you trust"
                        .into(),
                );
            }
            Self::Listen { .. } | Self::Reflection(_) => return None,
            Self::Store(e) | Self::Engine(EngineError::Store(e)) => e,
            Self::Engine(EngineError::Inconsistent(_) | EngineError::Thread(_)) => return None,
        };
        match store {
            StoreError::Locked { .. } => {
                Some("stop the other coordinator, or give this one another --data folder".into())
            }
            StoreError::Foreign { .. } => Some("give an empty or new folder with --data".into()),
            StoreError::Version { found, supported, .. } if found > supported => {
                Some("it was written by a newer evocache: use that one, or another --data folder".into())
            }
            StoreError::Version { .. } | StoreError::Corrupt { .. } => {
                Some("restore the folder from a copy, or give another --data folder".into())
            }
            StoreError::Failed(_) => Some("look at free space and permissions of the --data folder".into()),
        }
    }
}

/// A coordinator that runs.
pub struct Running {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    engine: Engine,
}

/// Starts a coordinator: opens the store, recovers, listens.
pub async fn start(options: ServeOptions) -> Result<Running, ServeError> {
    if !options.allow_remote_plaintext && !api::is_loopback(&options.listen) {
        return Err(ServeError::Plaintext(options.listen));
    }
    let listen = |source| ServeError::Listen { address: options.listen, source };
    // Bound first: a port in use is told at once, and nobody can connect before the state is there.
    let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let store = Arc::new(SledStore::open(&options.data).map_err(ServeError::Store)?);
    let policy = RetryPolicy {
        max_attempts: 5,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(60),
        ttl: options.lease_ttl,
    };
    let settings = Settings { store, clock: Arc::new(SystemClock::new()), ids: Arc::new(Uuids), policy };
    let engine = Engine::start(settings)?;
    let (stopping, stop) = watch::channel(false);
    let services = Services { engine: engine.handle(), lease_ttl: options.lease_ttl, stopping: stop.clone() };
    let router = api::router(services).await?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(api::limits::KEEP_ALIVE));
    let mut stop = stop;
    let serve = router.serve_with_incoming_shutdown(incoming, async move {
        // An error means that `Running` is gone: stop as well.
        let _ = stop.wait_for(|&stopping| stopping).await;
    });
    #[expect(clippy::disallowed_methods, reason = "joined in `Running::shutdown`")]
    let server = tokio::spawn(serve);
    tracing::info!(%address, data = %options.data.display(), "coordinator listens");
    Ok(Running { address, stopping, server, engine })
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Stops in phases; never takes much longer than [`DRAIN`].
    pub async fn shutdown(self) {
        // No receiver means that the server has ended already.
        let _ = self.stopping.send(true);
        let mut server = self.server;
        // tonic waits for idle keep-alive connections without end: the limit is ours.
        match tokio::time::timeout(DRAIN, &mut server).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(e))) => tracing::error!(error = %e, "the server ended with an error"),
            Ok(Err(e)) => tracing::error!(error = %e, "the server's task failed"),
            Err(_) => {
                tracing::info!("connections still open after {DRAIN:?} are cut");
                server.abort();
            }
        }
        let engine = self.engine;
        if let Err(e) = tokio::task::spawn_blocking(move || engine.stop()).await {
            tracing::error!(error = %e, "the engine could not be joined");
        }
        tracing::info!("coordinator stopped");
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
