//! The simulated network, as tonic's server and clients want it: who listens, who connects, and calls over connections that
//! get lost.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use turmoil::net::{TcpListener, TcpStream};

const PORT: u16 = 7447;
/// The coordinator's host.
pub(crate) const COORDINATOR: &str = "coordinator";
/// A call without an answer by then has lost its connection.
const PATIENCE: Duration = Duration::from_millis(700);

/// What connects to the coordinator's port; to be called on its host.
pub(crate) async fn incoming() -> std::io::Result<impl Stream<Item = std::io::Result<Connection>>> {
    let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    Ok(futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| Connection(stream));
        Some((accepted, listener))
    }))
}

/// A connection of the simulated network, as tonic wants it.
pub(crate) struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, to)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn connect() -> Channel {
    let connector = tower::service_fn(|_: tonic::transport::Uri| async {
        TcpStream::connect((COORDINATOR, PORT)).await.map(TokioIo::new)
    });
    Endpoint::from_static("http://coordinator:7447").connect_with_connector_lazy(connector)
}

/// Calls until there is an answer, or for so many tries. A new connection each time one was lost: on a simulated network
/// nothing is sent again by itself.
pub(crate) async fn call<Q: Clone, A, F>(
    tries: u32,
    request: &Q,
    call: impl Fn(Channel, Q) -> F,
) -> Option<Result<A, Status>>
where
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    for _ in 0..tries {
        match tokio::time::timeout(PATIENCE, call(connect(), request.clone())).await {
            Ok(Ok(answer)) => return Some(Ok(answer.into_inner())),
            Ok(Err(status)) if is_answer(&status) => return Some(Err(status)),
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    None
}

fn is_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition
            | Code::NotFound
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::PermissionDenied
    )
}
