//! Starts the server and stops it in order.
//!
//! It listens at once and loads the model meanwhile; until the model has drawn a first picture, which also tells how
//! long one takes, `/readyz` fails. It stops in phases: no new request, then what waits is drawn for a while, then what
//! is left is refused.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evocache_net::credentials::CredentialError;
use evocache_net::pace::Pace;
use evocache_net::tls::{Protocol, Tls, TlsFiles};
use evocache_net::tokens::TokensError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::door::Door;
use super::follow::{Source, follow};
use super::pictures::Pictures;
use super::site::Site;
use super::studio::{Painter, StudioError, StudioOptions};
use super::{connections, http, wall};
use crate::evaluator::pipeline::Pipeline;
use crate::files::ModelError;

/// How the server works.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The address to listen on; port 0 takes any.
    pub listen: SocketAddr,
    /// The certificates; `None`: connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// The file of tokens; `None`: everybody may ask.
    pub tokens: Option<PathBuf>,
    /// How many pictures the holder of a token may have, or an address if there are no tokens; `None`: any number.
    pub pace: Option<Pace>,
    /// The model.
    pub studio: StudioOptions,
    /// The search whose best schedule replaces it.
    pub source: Option<Source>,
    /// Most pictures of one request.
    pub count: u32,
    /// How long a request may take that does not say.
    pub deadline: Duration,
    /// Bytes of pictures to keep for clients that want addresses.
    pub pictures: usize,
    /// Most connections.
    pub connections: usize,
    /// How long a stop waits for what runs and waits.
    pub drain: Duration,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] CredentialError),
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The model cannot be used.
    #[error(transparent)]
    Studio(#[from] StudioError),
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    site: Arc<Site>,
    stop: watch::Sender<bool>,
    drain: Duration,
    pages: JoinHandle<()>,
    painter: Painter,
    source: Option<Source>,
    /// Ends with the server.
    following: JoinSet<()>,
}

impl Server {
    /// Listens, and starts to load the model on the device's thread.
    ///
    /// # Errors
    ///
    /// If the address cannot be used or the thread cannot be started.
    pub async fn start(
        options: ServeOptions,
        load: impl FnOnce() -> Result<Pipeline, ModelError> + Send + 'static,
    ) -> Result<Self, ServeError> {
        let door = Door::open(options.tokens, options.pace)?;
        let tls = options.tls.map(|files| Tls::read(files, Protocol::Http1, wall::now())).transpose()?;
        let listen = |source| ServeError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let painter = Painter::start(options.studio, load)?;
        let meters = painter.studio.meters.clone();
        let site = Arc::new(Site {
            studio: painter.studio.clone(),
            pictures: Pictures::new(options.pictures),
            stopping: AtomicBool::new(false),
            door,
            tls: tls.clone(),
            count: options.count,
            deadline: options.deadline,
        });
        let (stop, stopped) = watch::channel(false);
        let pages = connections::serve(listener, http::router(site.clone()), tls, options.connections, meters, stopped);
        #[expect(clippy::disallowed_methods, reason = "joined in `Server::shutdown`")]
        let pages = tokio::spawn(pages);
        let (source, following) = (options.source, JoinSet::new());
        Ok(Self { address, site, stop, drain: options.drain, pages, painter, source, following })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the model is loaded and pictures are drawn.
    ///
    /// # Errors
    ///
    /// If the model or the schedule cannot be used.
    pub async fn ready(&mut self) -> Result<(), ServeError> {
        self.painter.ready().await?;
        if let Some(source) = self.source.take() {
            self.following.spawn(follow(self.site.clone(), source));
        }
        Ok(())
    }

    /// Returns when the device's thread has ended by itself, which it should not.
    pub async fn failed(&mut self) -> ServeError {
        self.painter.failed().await.into()
    }

    /// Reads certificates and tokens again. With a mistake in a file, the log says so and the previous ones stay in use.
    pub fn reload(&self) {
        match self.site.door.reload() {
            Ok(()) => tracing::info!("tokens reloaded"),
            Err(error) => tracing::error!(%error, "cannot reload tokens: the previous ones stay in use"),
        }
        match self.site.tls.as_ref().map(|tls| tls.reload(wall::now())) {
            Some(Ok(expiry)) => tracing::info!(ends = expiry.certificate, "certificates reloaded, for new connections"),
            Some(Err(error)) => {
                tracing::error!(%error, "cannot reload certificates: the previous ones stay in use");
            }
            None => {}
        }
    }

    /// Stops: lets in nothing more, draws what waits for as long as the options say, and refuses the rest.
    pub async fn shutdown(self) {
        self.site.stopping.store(true, Ordering::Relaxed);
        self.site.studio.desk.drain();
        // Without a receiver the pages have ended already.
        let _ = self.stop.send(true);
        let mut pages = self.pages;
        if tokio::time::timeout(self.drain, &mut pages).await.is_err() {
            self.site.studio.desk.close();
            // The answers that say so.
            if tokio::time::timeout(Duration::from_secs(2), &mut pages).await.is_err() {
                pages.abort();
            }
        }
        self.painter.stop().await;
    }
}
