//! The requests of calls: a message that is too large is refused before memory is reserved for it, and a call of one message
//! is received completely before it is processed.
//!
//! gRPC sends the length of a message before the message, and tonic reserves that much at once, up to one limit for a
//! whole service. Here each call has a limit of its own, and what is reserved counts against the caller's budget. How much
//! a caller may hold is `budget.rs`.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;

use super::budget::{Budget, Share};
use super::principal::Principal;
use super::{counts, refusals};
use crate::server::{limits, status};

/// The prefix of a gRPC message: a compression flag and four bytes of length.
const PREFIX: usize = 5;

/// The request of a stream, each message of which has a limit.
pub(super) struct Bounded {
    inner: Body,
    most: usize,
    /// The part of the present prefix that has arrived.
    prefix: [u8; PREFIX],
    known: usize,
    /// Bytes of the present message that have not arrived yet.
    left: usize,
}

impl Bounded {
    pub(super) fn new(inner: Body, most: usize) -> Self {
        Self { inner, most, prefix: [0; PREFIX], known: 0, left: 0 }
    }

    /// Reads the lengths of the messages in these bytes.
    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let more = (PREFIX - self.known).min(bytes.len());
            self.prefix[self.known..self.known + more].copy_from_slice(&bytes[..more]);
            self.known += more;
            bytes = &bytes[more..];
            if self.known == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                self.known = 0;
                if self.left > self.most {
                    return Err(refusals::message_too_large(self.left, self.most));
                }
            }
        }
        Ok(())
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let followed = frame.data_ref().map_or(Ok(()), |bytes| self.follow(bytes));
        Poll::Ready(Some(followed.map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Receives a call of one message completely and checks the counts of its repeated fields. The share is to be held as long
/// as the message is.
pub(super) async fn receive(
    body: Body,
    path: &str,
    (budget, principal): (&Budget, &Principal),
) -> Result<(Body, Option<Share>), Status> {
    let heard = receive_all(body, path, budget, principal);
    let (message, share) = tokio::time::timeout(limits::HEARING, heard).await.map_err(|_| refusals::not_heard())??;
    // Compressed messages are refused by tonic: the services accept no compression.
    if message.first() == Some(&0) {
        counts::check(path, message.get(PREFIX..).unwrap_or_default())?;
    }
    Ok((Body::new(Whole(Some(message))), share))
}

async fn receive_all(
    mut body: Body,
    path: &str,
    budget: &Budget,
    principal: &Principal,
) -> Result<(Bytes, Option<Share>), Status> {
    let most = limits::request_bytes(path);
    let (mut message, mut share, mut whole) = (Vec::new(), None, None);
    while let Some(frame) = next(&mut body).await? {
        // Trailers are not part of the message.
        let Ok(bytes) = frame.into_data() else { continue };
        message.extend_from_slice(&bytes);
        if whole.is_none()
            && let Some(length) = message.get(1..PREFIX).and_then(|four| four.try_into().ok())
        {
            let length = u32::from_be_bytes(length) as usize;
            if length > most {
                return Err(refusals::message_too_large(length, most));
            }
            if length > limits::SMALL {
                share = Some(budget.take(principal, length).await?);
            }
            message.reserve_exact((PREFIX + length).saturating_sub(message.len()));
            whole = Some(PREFIX + length);
        }
        if whole.is_some_and(|whole| message.len() > whole) {
            return Err(status::invalid("message", "is followed by another, where the call takes one"));
        }
    }
    Ok((message.into(), share))
}

pub(super) async fn next(body: &mut Body) -> Result<Option<Frame<Bytes>>, Status> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()
}

/// A message that has arrived completely.
pub(super) struct Whole(pub(super) Option<Bytes>);

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().filter(|message| !message.is_empty()).map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Bytes::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let good: Vec<u8> = [message(10), message(0), message(3)].concat();
        for size in 1..=good.len() {
            let mut body = Bounded::new(Body::empty(), 10);
            assert!(good.chunks(size).all(|chunk| body.follow(chunk).is_ok()), "in pieces of {size}");
            // The prefix alone is enough.
            let verdicts: Vec<_> = message(11)[..PREFIX].chunks(size).map(|chunk| body.follow(chunk)).collect();
            let Some(Err(status)) = verdicts.last() else { panic!("too large, in pieces of {size}") };
            assert_eq!(status.code(), tonic::Code::OutOfRange);
            assert!(status.message().contains("11 bytes") && status.message().contains("10"), "{status}");
        }
    }

    #[tokio::test]
    async fn a_call_is_received_to_its_end_and_no_further() {
        let (budget, others) = (Budget::new(limits::REQUESTS), Principal::Others);
        let receive = async |bytes: Vec<u8>| {
            let heard = super::receive(Body::new(Whole(Some(bytes.into()))), "/any", (&budget, &others)).await;
            heard.map(|(_, share)| share.is_some()).map_err(|status| status.code())
        };
        assert_eq!(receive(message(10)).await, Ok(false), "too small to be counted");
        assert_eq!(receive(message(limits::SMALL + 1)).await, Ok(true));
        assert_eq!(receive(message(limits::MAX_SMALL_REQUEST + 1)).await, Err(tonic::Code::OutOfRange));
        assert_eq!(receive([message(10), message(10)].concat()).await, Err(tonic::Code::InvalidArgument));
        assert_eq!(budget.held(), 0);
    }
}
