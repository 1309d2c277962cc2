//! The HTTP endpoint: a listener, its connections, and three pages.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::metrics;
use super::parts::Parts;
use crate::server::connections::{ConnectionLimits, Connections, Watched};
use crate::server::limits;

/// The text format of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long running answers may take when the coordinator stops.
const DRAIN: Duration = Duration::from_secs(1);

/// Why the coordinator takes no calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unready {
    Starting,
    Stopping,
    Dead,
    Broken,
}

impl Unready {
    fn text(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Dead => "the engine has stopped",
            Self::Broken => "the store cannot be flushed",
        }
    }
}

impl IntoResponse for Unready {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, self.text()).into_response()
    }
}

/// What the pages show.
struct Site {
    /// Set when the coordinator takes calls.
    parts: OnceLock<Parts>,
    stopping: AtomicBool,
}

/// The running endpoint.
pub struct Http {
    address: SocketAddr,
    site: Arc<Site>,
    stop: watch::Sender<bool>,
    server: JoinHandle<io::Result<()>>,
}

impl Http {
    /// Listens. `/readyz` fails until [`ready`](Self::ready).
    pub async fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let site = Arc::new(Site { parts: OnceLock::new(), stopping: AtomicBool::new(false) });
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .with_state(site.clone());
        let (stop, mut stopped) = watch::channel(false);
        let limits = ConnectionLimits {
            all: limits::HTTP_CONNECTIONS,
            silence: Some(limits::HTTP_SILENCE),
            ..ConnectionLimits::default()
        };
        let connections = Connections::new(limits);
        let mut watch = JoinSet::new();
        watch.spawn(connections.clone().watch());
        let serve =
            axum::serve(Doors { listener, connections, _watch: watch }, router).with_graceful_shutdown(async move {
                // An error means that `Http` is gone: that is a stop as well.
                let _ = stopped.wait_for(|&stopped| stopped).await;
            });
        #[expect(clippy::disallowed_methods, reason = "joined in `Http::stop`")]
        let server = tokio::spawn(async move { serve.await });
        Ok(Self { address, site, stop, server })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The coordinator takes calls from now on.
    pub fn ready(&self, parts: Parts) {
        // Called once; a second call would tell the same.
        let _ = self.site.parts.set(parts);
    }

    /// The coordinator takes no calls from now on.
    pub fn stopping(&self) {
        self.site.stopping.store(true, Ordering::Relaxed);
    }

    /// Ends the endpoint.
    pub async fn stop(self) {
        // Without a receiver it has ended already.
        let _ = self.stop.send(true);
        let mut server = self.server;
        if tokio::time::timeout(DRAIN, &mut server).await.is_err() {
            server.abort();
        }
    }
}

/// Accepts a limited number of connections. An answer takes milliseconds, so silent connections make room for others.
struct Doors {
    listener: TcpListener,
    connections: Connections,
    /// Ends when this is dropped.
    _watch: JoinSet<()>,
}

impl Listener for Doors {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        loop {
            // axum ignores errors of one connection, and waits for a moment after others.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Some(stream) = self.connections.enter(stream, address.ip().to_canonical()).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Site {
    fn unready(&self) -> Option<Unready> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some(Unready::Stopping);
        }
        match self.parts.get() {
            None => Some(Unready::Starting),
            Some(parts) if !parts.engine.is_running() => Some(Unready::Dead),
            Some(parts) if parts.engine.meters().read().broken => Some(Unready::Broken),
            Some(_) => None,
        }
    }
}

/// Fails if a restart would help: nothing else helps when the engine is gone, and after a failure of the store the engine
/// tries the same.
async fn healthz(Shared(site): Shared<Arc<Site>>) -> Response {
    match site.unready() {
        Some(why @ (Unready::Dead | Unready::Broken)) => why.into_response(),
        Some(Unready::Starting | Unready::Stopping) | None => "alive\n".into_response(),
    }
}

async fn readyz(Shared(site): Shared<Arc<Site>>) -> Response {
    site.unready().map_or_else(|| "ready\n".into_response(), Unready::into_response)
}

async fn metrics_page(Shared(site): Shared<Arc<Site>>) -> Response {
    let Some(parts) = site.parts.get() else { return Unready::Starting.into_response() };
    match metrics::collect(parts, site.unready().is_none()).await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        // The engine is gone, or its queue is full.
        Err(refusal) => (StatusCode::SERVICE_UNAVAILABLE, refusal.to_string()).into_response(),
    }
}
