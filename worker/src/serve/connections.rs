//! Accepts connections and serves them: so many at once, none of them idle or unread for long.
//!
//! hyper drops the handler of a request when its client hangs up; that is how a request is cancelled.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use axum::{Extension, Router};
use evocache_net::tls::Tls;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::http::Peer;
use super::limits;
use super::meters::Meters;

/// Serves until `stop`, then lets the requests that run end.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    most: usize,
    meters: std::sync::Arc<Meters>,
    mut stop: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    let stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => {
                meters.connections(open.len());
                continue;
            }
            // An error means that the server is gone: that is a stop as well.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(_) => {
                // Of this connection, or of a machine that has run out of file descriptors.
                sleep(limits::PAUSE).await;
                continue;
            }
        };
        if open.len() >= most {
            meters.refused_connection();
            continue;
        }
        // An error means that the client has gone.
        let _ = stream.set_nodelay(true);
        let router = router.clone().layer(Extension(Peer(address.ip().to_canonical())));
        let stream = Read::new(stream);
        match &tls {
            None => open.spawn(connection(stream, router, stopping.clone())),
            Some(tls) => {
                // Read for each connection, so that reloaded certificates come into use.
                let acceptor = TlsAcceptor::from(tls.config());
                open.spawn(encrypted(acceptor, stream, router, stopping.clone()))
            }
        };
        meters.connections(open.len());
    }
    drop(listener);
    while open.join_next().await.is_some() {
        meters.connections(open.len());
    }
}

async fn encrypted<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    acceptor: TlsAcceptor,
    stream: S,
    router: Router,
    stop: watch::Receiver<bool>,
) {
    // An error, or a silence, is that of one connection.
    if let Ok(Ok(stream)) = timeout(limits::HEAD_TIME, acceptor.accept(stream)).await {
        connection(stream, router, stop).await;
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits::HEAD_TIME).max_buf_size(limits::HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    // Errors are those of one connection: its client is gone, silent, or speaks something else.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// A stream that fails if its other end reads nothing for a while.
struct Read<S> {
    stream: S,
    unread: Option<Pin<Box<Sleep>>>,
}

impl<S> Read<S> {
    fn new(stream: S) -> Self {
        Self { stream, unread: None }
    }

    /// Watches the result of a write.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let unread = self.unread.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limits::UNREAD)));
        ready!(unread.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Read<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Read<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(closed, cx)
    }
}
