//! The connections of the server: accepted, encrypted if that is asked for, and no more of them than agreed.
//!
//! An error at one connection ends that connection and never the server: a machine that has run out of file descriptors
//! takes new connections again as soon as it can. Absent on purpose: who calls over them, which is `gate.rs`.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::{Connected, TcpIncoming};

use super::limits;
use super::tls::Tls;

/// How long a stranger may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time; whoever comes after waits to be accepted.
const HANDSHAKES: usize = 4096;
/// Connections that are accepted and that the server has not taken yet.
const WAITING: usize = 64;
/// How long to wait after an accept that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// What became of connections. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: Mutex<HashMap<IpAddr, usize>>,
    accepted: AtomicU64,
    handshakes_failed: AtomicU64,
    refused: AtomicU64,
}

/// Connections in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Open now.
    pub open: usize,
    /// Accepted so far.
    pub accepted: u64,
    /// Ended because TLS did not come about.
    pub handshakes_failed: u64,
    /// Ended because their address had too many.
    pub refused: u64,
}

impl Connections {
    /// The numbers now.
    pub fn read(&self) -> ConnectionCounts {
        ConnectionCounts {
            open: self.0.open.lock().unwrap_or_else(PoisonError::into_inner).values().sum(),
            accepted: self.0.accepted.load(Ordering::Relaxed),
            handshakes_failed: self.0.handshakes_failed.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }

    /// A place among those of this address, if there is one.
    fn enter(&self, address: IpAddr, most: usize) -> Option<Place> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.entry(address).or_default();
        if *here >= most {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *here += 1;
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        Some(Place { address, connections: self.clone() })
    }
}

/// A connection that is counted; given back when it is dropped.
struct Place {
    address: IpAddr,
    connections: Connections,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = open.get_mut(&self.address) {
            *here -= 1;
            // Addresses without a connection are forgotten: the map is as large as what is open.
            if *here == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub(super) IpAddr);

/// An accepted connection.
pub struct Connection {
    stream: Channel,
    place: Place,
}

enum Channel {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.place.address)
    }
}

/// Accepted connections, one after the other. Ends with the server.
pub struct Incoming {
    ready: mpsc::Receiver<io::Result<Connection>>,
    /// Ends when this is dropped.
    _accepting: JoinSet<()>,
}

impl Incoming {
    /// Accepts from now on; at most `most` connections from one address.
    pub fn new(listener: TcpIncoming, tls: Option<Tls>, connections: Connections, most: usize) -> Self {
        let listener = listener.with_nodelay(Some(true)).with_keepalive(Some(limits::KEEP_ALIVE));
        let (tell, ready) = mpsc::channel(WAITING);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, tls, connections, most, tell));
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
    most: usize,
    tell: mpsc::Sender<io::Result<Connection>>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.next(), if handshakes.len() < HANDSHAKES => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        let stream = match accepted {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            None => return,
        };
        // Whoever has gone already needs no connection.
        let Ok(peer) = stream.peer_addr() else { continue };
        let address = peer.ip().to_canonical();
        let Some(place) = connections.enter(address, most) else {
            tracing::debug!(%address, most, "connection refused: its address has too many");
            continue;
        };
        match &tls {
            None => {
                let connection = Connection { stream: Channel::Plain(stream), place };
                // An error means that the server has ended, and this with it.
                let _ = tell.send(Ok(connection)).await;
            }
            Some(tls) => {
                // Asked for each connection anew: that is how new certificates come into use.
                let acceptor = TlsAcceptor::from(tls.config());
                handshakes.spawn(encrypt(acceptor, stream, place, tell.clone()));
            }
        }
    }
}

async fn encrypt(acceptor: TlsAcceptor, stream: TcpStream, place: Place, tell: mpsc::Sender<io::Result<Connection>>) {
    let problem = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let connection = Connection { stream: Channel::Encrypted(Box::new(stream)), place };
            // An error means that the server has ended.
            let _ = tell.send(Ok(connection)).await;
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("nothing within {HANDSHAKE:?}"),
    };
    place.connections.0.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(address = %place.address, problem, "no TLS");
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
