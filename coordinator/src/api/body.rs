//! The bodies of calls: messages that are too large are refused before there is room made for them, and a call's place
//! is held until its answer has ended.
//!
//! gRPC says the length of a message before the message, and tonic makes room for all of it at once, up to one limit for
//! a whole service. Here each call has its own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;

use super::quota::Place;
use super::status;

/// A flag of compression and four bytes of length.
const PREFIX: usize = 5;

/// A request whose messages have at most so many bytes.
pub(super) struct Bounded {
    inner: Body,
    most: usize,
    /// What has come of a prefix.
    prefix: [u8; PREFIX],
    known: usize,
    /// Bytes of the present message that are still to come.
    left: usize,
}

impl Bounded {
    pub(super) fn new(inner: Body, most: usize) -> Self {
        Self { inner, most, prefix: [0; PREFIX], known: 0, left: 0 }
    }

    /// Follows the messages through more bytes.
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
                    return Err(status::message_too_large(self.left, self.most));
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

/// An answer with the place of its call.
pub(super) struct Held {
    pub(super) inner: Body,
    pub(super) _place: Place,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
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
}
