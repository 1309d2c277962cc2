//! The bodies of calls: messages that are too large are refused before there is room made for them, a call is heard to its
//! end before anything is made of it, and an answer is held, and counted, until its last byte is on its way.
//!
//! gRPC says the length of a message before the message, and tonic makes room for all of it at once, up to one limit for
//! a whole service. Here each call has its own. What waits to be read is handed on in pieces, as HTTP/2 asks for them;
//! what nobody asks for is dropped. Absent: how much may be held, which is `budget.rs`.

use std::future::poll_fn;
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
use super::connections::Running;
use super::quota::{Place, Principal};
use super::{counts, limits, status};

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

/// Hears a call of one message to its end, and sees that it repeats nothing too often. What comes back is held as long as
/// the message is.
pub(super) async fn hear(
    body: Body,
    path: &str,
    (budget, principal): (&Budget, &Principal),
) -> Result<(Body, Option<Share>), Status> {
    let heard = hear_all(body, path, budget, principal);
    let (message, share) =
        tokio::time::timeout(limits::HEARING, heard).await.map_err(|_| status::not_heard(limits::HEARING))??;
    // A flag says that it is compressed, which nobody has agreed to.
    if message.first() == Some(&0) {
        counts::check(path, message.get(PREFIX..).unwrap_or_default())?;
    }
    Ok((Body::new(Whole(Some(message))), share))
}

async fn hear_all(
    mut body: Body,
    path: &str,
    budget: &Budget,
    principal: &Principal,
) -> Result<(Bytes, Option<Share>), Status> {
    let most = limits::request_bytes(path);
    let (mut message, mut share, mut whole) = (Vec::new(), None, None);
    while let Some(frame) = next(&mut body).await? {
        // What comes after the message is no part of it.
        let Ok(bytes) = frame.into_data() else { continue };
        message.extend_from_slice(&bytes);
        if whole.is_none()
            && let Some(length) = message.get(1..PREFIX).and_then(|four| four.try_into().ok())
        {
            let length = u32::from_be_bytes(length) as usize;
            if length > most {
                return Err(status::message_too_large(length, most));
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

async fn next(body: &mut Body) -> Result<Option<Frame<Bytes>>, Status> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()
}

/// A message that is all there.
struct Whole(Option<Bytes>);

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

/// Bytes of an answer with the share that they are held by; both go with the last piece, wherever that is by then.
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

/// The place of a call among those of its principal, and among those of its connection.
type Places = (Option<Place>, Option<Running>);

/// An answer of one message, encoded, with the place of its call.
pub(super) struct Answer {
    unread: Arc<Unread>,
    trailers: Option<HeaderMap>,
    watch: AbortHandle,
    _place: Places,
}

/// An answer that is too small to count, with the place of its call.
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

/// What nobody has read yet.
struct Unread {
    /// `None` once it was dropped.
    bytes: Mutex<Option<Bytes>>,
    turns: AtomicUsize,
}

impl Answer {
    /// Encodes the answer at once: what it was made from may be several times as large.
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
        let unread = Arc::new(Unread { bytes, turns: AtomicUsize::new(0) });
        let watch = Unread::watch(&unread);
        Ok(Self { unread, trailers, watch, _place: place })
    }
}

impl Unread {
    /// Drops what nobody reads: a caller that grants no window, or stops to, could else keep it for ever.
    fn watch(unread: &Arc<Self>) -> AbortHandle {
        let unread = Arc::downgrade(unread);
        #[expect(clippy::disallowed_methods, reason = "ended when the answer is dropped")]
        let watch = tokio::spawn(async move {
            let mut seen = Some(0);
            while let Some(turns) = seen {
                tokio::time::sleep(limits::UNREAD).await;
                seen = unread.upgrade().and_then(|unread| unread.look(turns));
            }
        });
        watch.abort_handle()
    }

    /// How many pieces were read so far. If these are no more than when it was looked at last, the rest is dropped.
    fn look(&self, seen: usize) -> Option<usize> {
        let turns = self.turns.load(Ordering::Relaxed);
        if turns == seen {
            self.bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        (turns > seen).then_some(turns)
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
            None => return Poll::Ready(Some(Err(status::not_read(limits::UNREAD)))),
            Some(bytes) => bytes.split_to(bytes.len().min(limits::PIECE)),
        };
        self.unread.turns.fetch_add(1, Ordering::Relaxed);
        let frame = if piece.is_empty() { self.trailers.take().map(Frame::trailers) } else { Some(Frame::data(piece)) };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let unread = self.unread.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.trailers.is_none() && unread.as_ref().is_some_and(Bytes::is_empty)
    }
}

/// An answer of many messages with the place of its call. A message is made when there is room to send it, and a large one
/// waits for a share.
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

    #[tokio::test]
    async fn a_call_is_heard_to_its_end_and_no_further() {
        let (budget, others) = (Budget::new(limits::REQUESTS), Principal::Others);
        let hear = async |bytes: Vec<u8>| {
            let heard = hear(Body::new(Whole(Some(bytes.into()))), "/any", (&budget, &others)).await;
            heard.map(|(_, share)| share.is_some()).map_err(|status| status.code())
        };
        assert_eq!(hear(message(10)).await, Ok(false), "too small to be counted");
        assert_eq!(hear(message(limits::SMALL + 1)).await, Ok(true));
        assert_eq!(hear(message(limits::MAX_SMALL_REQUEST + 1)).await, Err(tonic::Code::OutOfRange));
        assert_eq!(hear([message(10), message(10)].concat()).await, Err(tonic::Code::InvalidArgument));
        assert_eq!(budget.held(), 0);
    }
}
