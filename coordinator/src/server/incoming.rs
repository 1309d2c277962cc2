//! Accepts connections, and encrypts them if TLS is configured.
//!
//! An error of one connection ends that connection and never the server: a machine that has run out of file descriptors
//! accepts connections again as soon as it can. Which connections are closed if there are too many is `connections.rs`; who
//! calls over them is `gate/`.

use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use governor::{Quota, RateLimiter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::{Connected, TcpIncoming};

use super::activity::Peer;
use super::connections::{Connections, Watched};
use super::limits;
use evocache_net::tls::Tls;

/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Accepted connections that the server has not taken yet.
const WAITING: usize = 64;
/// How long to wait after a failed accept.
const PAUSE: Duration = Duration::from_millis(50);
/// Log lines per minute for connections that are not accepted.
const LINES: NonZeroU32 = NonZeroU32::MIN.saturating_add(5);

/// An accepted connection.
pub struct Connection {
    stream: Channel,
    peer: Peer,
}

enum Channel {
    Plain(Watched),
    Encrypted(Box<TlsStream<Watched>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// A stream of accepted connections. Ends with the server.
pub struct Incoming {
    ready: mpsc::Receiver<io::Result<Connection>>,
    /// The accepting tasks; they end when this is dropped.
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// Accepts from now on.
    pub fn new(listener: TcpIncoming, tls: Option<Tls>, connections: Connections) -> Self {
        let listener = listener.with_nodelay(Some(true)).with_keepalive(Some(limits::KEEP_ALIVE));
        let (tell, ready) = mpsc::channel(WAITING);
        let mut accepting = JoinSet::new();
        accepting.spawn(connections.clone().watch());
        accepting.spawn(accept(listener, tls, connections, tell));
        Self { ready, _accepting: accepting }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context)
    }
}

async fn accept(
    mut listener: TcpIncoming,
    tls: Option<Tls>,
    connections: Connections,
    tell: mpsc::Sender<io::Result<Connection>>,
) {
    let log_lines = RateLimiter::direct(Quota::per_minute(LINES));
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.next() => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        let stream = match accepted {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                if log_lines.check().is_ok() {
                    tracing::warn!(%error, "cannot accept a connection");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            None => return,
        };
        // The peer is gone already.
        let Ok(peer) = stream.peer_addr() else { continue };
        let address = peer.ip().to_canonical();
        let Some(stream) = connections.enter(stream, address).await else {
            if log_lines.check().is_ok() {
                tracing::warn!(%address, "connection refused: all allowed connections are in use");
            }
            continue;
        };
        let peer = stream.peer();
        match &tls {
            None => {
                let connection = Connection { stream: Channel::Plain(stream), peer };
                // An error means that the server has ended.
                let _ = tell.send(Ok(connection)).await;
            }
            Some(tls) => {
                // Read for each connection, so that reloaded certificates come into use.
                let acceptor = TlsAcceptor::from(tls.config());
                handshakes.spawn(encrypt(acceptor, stream, peer, connections.clone(), tell.clone()));
            }
        }
    }
}

async fn encrypt(
    acceptor: TlsAcceptor,
    stream: Watched,
    peer: Peer,
    connections: Connections,
    tell: mpsc::Sender<io::Result<Connection>>,
) {
    let problem = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let connection = Connection { stream: Channel::Encrypted(Box::new(stream)), peer };
            // An error means that the server has ended.
            let _ = tell.send(Ok(connection)).await;
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no handshake within {HANDSHAKE:?}"),
    };
    connections.handshake_failed();
    tracing::debug!(address = %peer.address, problem, "TLS handshake failed");
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Channel::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Channel::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Channel::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Channel::Plain(stream) => stream.is_write_vectored(),
            Channel::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Channel::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Channel::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Channel::Encrypted(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
