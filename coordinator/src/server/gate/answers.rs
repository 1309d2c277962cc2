//! The answers of calls: an answer is encoded at once and counted until its last byte is sent, and dropped if the caller
//! stops reading it.
//!
//! HTTP/2 takes an answer in pieces as the caller grants window for them. How much a caller may hold is `budget.rs`.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::codegen::{BoxFuture, Bytes};

use super::budget::{Budget, Share};
use super::principal::Principal;
use super::quota::Place;
use super::requests::next;
use crate::server::activity::Running;
use crate::server::{limits, status};

/// Bytes of an answer with the share that covers them; both are freed with the last piece, wherever that is.
struct Counted {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn counted(bytes: Bytes, share: Share) -> Bytes {
    Bytes::from_owner(Counted { bytes, _share: share })
}

/// The place of a call among those of its principal, and its mark on its connection.
type Places = (Option<Place>, Option<Running>);

/// An encoded answer of one message, with the place of its call.
pub(super) struct Answer {
    unread: Arc<Unread>,
    trailers: Option<HeaderMap>,
    watch: AbortHandle,
    _place: Places,
}

/// An answer that is too small to be counted, with the place of its call.
pub(super) struct Small {
    inner: Body,
    _place: Places,
}

impl Small {
    pub(super) fn new(inner: Body, place: Places) -> Self {
        Self { inner, _place: place }
    }
}

impl HttpBody for Small {
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

/// The part of an answer that is not read yet.
struct Unread {
    /// `None` after the answer was dropped.
    bytes: Mutex<Option<Bytes>>,
    /// Pieces that were read.
    pieces: AtomicUsize,
}

impl Answer {
    /// Encodes the answer at once: the values that it is made from may take several times its size.
    pub(super) async fn of(mut body: Body, mut share: Share, place: Places) -> Result<Self, Status> {
        let (mut bytes, mut trailers) = (Bytes::new(), None);
        while let Some(frame) = next(&mut body).await? {
            match frame.into_data() {
                Ok(more) if bytes.is_empty() => bytes = more,
                Ok(more) => bytes = [bytes, more].concat().into(),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        share.shrink(bytes.len());
        let bytes = Mutex::new(Some(counted(bytes, share)));
        let unread = Arc::new(Unread { bytes, pieces: AtomicUsize::new(0) });
        let watch = Unread::watch(&unread);
        Ok(Self { unread, trailers, watch, _place: place })
    }
}

impl Unread {
    /// Drops an answer that is not read: a caller that grants no window would otherwise keep it forever.
    fn watch(unread: &Arc<Self>) -> AbortHandle {
        let unread = Arc::downgrade(unread);
        #[expect(clippy::disallowed_methods, reason = "ended when the answer is dropped")]
        let watch = tokio::spawn(async move {
            let mut seen = Some(0);
            while let Some(pieces) = seen {
                tokio::time::sleep(limits::UNREAD).await;
                seen = unread.upgrade().and_then(|unread| unread.look(pieces));
            }
        });
        watch.abort_handle()
    }

    /// Returns how many pieces were read. If there are no more than `seen`, drops the rest and returns `None`.
    fn look(&self, seen: usize) -> Option<usize> {
        let pieces = self.pieces.load(Ordering::Relaxed);
        if pieces == seen {
            self.bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        (pieces > seen).then_some(pieces)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let piece = match &mut *self.unread.bytes.lock().unwrap_or_else(PoisonError::into_inner) {
            None => return Poll::Ready(Some(Err(status::not_read()))),
            Some(bytes) => bytes.split_to(bytes.len().min(limits::PIECE)),
        };
        self.unread.pieces.fetch_add(1, Ordering::Relaxed);
        let frame = if piece.is_empty() { self.trailers.take().map(Frame::trailers) } else { Some(Frame::data(piece)) };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let unread = self.unread.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.trailers.is_none() && unread.as_ref().is_some_and(Bytes::is_empty)
    }
}

/// An answer of many messages with the place of its call. A message is made when there is window to send it, and a large
/// one waits for a share.
pub(super) struct Flow {
    inner: Body,
    budget: Budget,
    principal: Principal,
    waiting: Option<(Bytes, BoxFuture<Share, Status>)>,
    _place: Places,
}

impl Flow {
    pub(super) fn new(inner: Body, budget: Budget, principal: Principal, place: Places) -> Self {
        Self { inner, budget, principal, waiting: None, _place: place }
    }
}

impl HttpBody for Flow {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.waiting.is_none() {
            let bytes = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.len() > limits::SMALL => bytes,
                    Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            };
            let (budget, principal, length) = (this.budget.clone(), this.principal.clone(), bytes.len());
            this.waiting = Some((bytes, Box::pin(async move { budget.take(&principal, length).await })));
        }
        let Some((_, share)) = &mut this.waiting else { return Poll::Ready(None) };
        let share = ready!(share.as_mut().poll(cx));
        let frame = this.waiting.take().map(|(bytes, _)| share.map(|share| Frame::data(counted(bytes, share))));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::super::requests::Whole;
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.resize(5 + length, 7);
        bytes
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_is_dropped() {
        let budget = Budget::new(limits::ANSWERS);
        let share = budget.take(&Principal::Others, limits::MAX_RESPONSE).await.ok().unwrap();
        let body = Body::new(Whole(Some(message(3 * limits::PIECE).into())));
        let mut answer = Answer::of(body, share, (None, None)).await.ok().unwrap();
        assert_eq!(budget.held(), 3 * limits::PIECE + 1024, "as much as there is, and no more");
        let unread = answer.unread.clone();
        let piece = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await.unwrap().unwrap();
        assert_eq!(unread.look(0), Some(1), "a piece was read");
        assert_eq!(unread.look(1), None);
        // The piece that is on its way has a hold on all of it.
        assert!(budget.held() > 0);
        drop(piece);
        assert_eq!(budget.held(), 0);
        let end = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await.unwrap().unwrap_err();
        assert_eq!(end.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn an_answer_comes_whole_and_in_pieces() {
        let all = message(2 * limits::PIECE);
        let body = Body::new(Whole(Some(all.clone().into())));
        let share = Budget::new(limits::ANSWERS).take(&Principal::Others, all.len()).await.ok().unwrap();
        let mut answer = Answer::of(body, share, (None, None)).await.ok().unwrap();
        let mut read = vec![];
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut answer).poll_frame(cx)).await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= limits::PIECE);
            read.extend_from_slice(&piece);
        }
        assert!(read == all && answer.is_end_stream());
    }
}
