//! The connections that are open, and which of them are closed: those that say nothing in time, and when there are too
//! many, those that would be missed least.
//!
//! A connection that has made no call yet goes first, the oldest before others; then one over which no call runs; then one
//! over which a stranger's call runs. One over which somebody is served is not closed: whoever comes then is refused.
//! Absent: how connections come about, which is `incoming.rs`, and who is a stranger, which is `gate.rs`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits;

/// How many connections there may be, and how long one may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// From everywhere.
    pub all: usize,
    /// From one address.
    pub each: usize,
    /// Until the first call.
    pub first_call: Duration,
    /// From one answer to the next, where connections are not kept.
    pub silence: Option<Duration>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { all: usize::MAX, each: usize::MAX, first_call: limits::FIRST_CALL, silence: None }
    }
}

/// The connections of one server. Clones count together.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    limits: ConnectionLimits,
    began: Instant,
    open: Mutex<Open>,
    /// Told when one has gone.
    left: Notify,
    accepted: AtomicU64,
    handshakes_failed: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
}

#[derive(Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Arc<Activity>>,
    /// As large as what is open: an address without a connection is forgotten.
    addresses: HashMap<IpAddr, usize>,
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
    /// Ended because there were too many, and none that could be closed instead.
    pub refused: u64,
    /// Ended because they said nothing.
    pub closed: u64,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// Some are being closed.
    Leaving,
    /// Somebody is served over every one.
    InUse,
}

/// What a connection does. Times are milliseconds since the server began.
#[derive(Debug, Default)]
struct Activity {
    address: Option<IpAddr>,
    accepted: u64,
    /// When something was last sent, or a call last began or ended.
    last: AtomicU64,
    /// Whether somebody who may has ever called.
    called: AtomicBool,
    /// Calls that run: of those who may, and of strangers.
    served: AtomicUsize,
    strangers: AtomicUsize,
    closing: AtomicBool,
    reader: AtomicWaker,
}

/// How much a connection would be missed. In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Silent,
    Idle,
    Strange,
    Serving,
}

impl Activity {
    fn worth(&self) -> Worth {
        let runs = |calls: &AtomicUsize| calls.load(Ordering::Relaxed) > 0;
        match (runs(&self.served), runs(&self.strangers), self.called.load(Ordering::Relaxed)) {
            (true, ..) => Worth::Serving,
            (_, true, _) => Worth::Strange,
            (_, _, true) => Worth::Idle,
            (_, _, false) => Worth::Silent,
        }
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.reader.wake();
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

impl Connections {
    /// None yet.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self(Arc::new(Inner {
            limits,
            began: Instant::now(),
            open: Mutex::default(),
            left: Notify::new(),
            accepted: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            closed: AtomicU64::new(0),
        }))
    }

    /// The numbers now.
    pub fn read(&self) -> ConnectionCounts {
        let inner = &self.0;
        ConnectionCounts {
            open: inner.open.lock().unwrap_or_else(PoisonError::into_inner).all.len(),
            accepted: inner.accepted.load(Ordering::Relaxed),
            handshakes_failed: inner.handshakes_failed.load(Ordering::Relaxed),
            refused: inner.refused.load(Ordering::Relaxed),
            closed: inner.closed.load(Ordering::Relaxed),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes a connection in, in place of another one if need be. `None`: there is no room.
    pub(crate) async fn enter(&self, stream: TcpStream, address: IpAddr) -> Option<Watched> {
        for _ in 0..limits::LEAVING {
            let left = self.0.left.notified();
            match self.place(address) {
                Ok(place) => return Some(Watched { stream, place }),
                Err(Full::InUse) => break,
                // They leave as soon as they have noticed; until then the next ones wait to be accepted.
                Err(Full::Leaving) => drop(tokio::time::timeout(limits::LEAVING_TIME, left).await),
            }
        }
        self.0.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn place(&self, address: IpAddr) -> Result<Place, Full> {
        let limits = self.0.limits;
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.addresses.get(&address).copied().unwrap_or(0);
        if open.all.len() >= limits.all {
            self.make_room(&open, None)?;
        } else if here >= limits.each {
            self.make_room(&open, Some(address))?;
        }
        let now = self.now();
        let activity =
            Activity { address: Some(address), accepted: now, last: AtomicU64::new(now), ..Default::default() };
        let (activity, id) = (Arc::new(activity), open.next);
        open.next += 1;
        *open.addresses.entry(address).or_default() += 1;
        open.all.insert(id, activity.clone());
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(Place { id, activity, connections: self.clone() })
    }

    /// Closes one that would be missed least. It leaves when it has noticed, so for a moment there may be a few too many.
    fn make_room(&self, open: &Open, address: Option<IpAddr>) -> Result<(), Full> {
        let candidates = open.all.values().filter(|a| address.is_none() || a.address == address);
        let (leaving, staying): (Vec<&Arc<Activity>>, Vec<_>) = candidates.partition(|a| a.is_closing());
        if leaving.len() >= limits::LEAVING {
            return Err(Full::Leaving);
        }
        let least = staying.into_iter().min_by_key(|a| (a.worth(), a.last.load(Ordering::Relaxed)));
        match least {
            Some(least) if least.worth() < Worth::Serving => self.close(least),
            // Somebody who leaves already makes the room.
            _ if !leaving.is_empty() => return Err(Full::Leaving),
            _ => return Err(Full::InUse),
        }
        Ok(())
    }

    fn close(&self, activity: &Activity) {
        activity.close();
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes those that have been silent for too long.
    fn close_silent(&self, now: u64) {
        let limits = self.0.limits;
        let passed = |since: u64, limit: Duration| now.saturating_sub(since) > limit.as_millis() as u64;
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        for activity in open.all.values().filter(|a| !a.is_closing()) {
            let silent = activity.worth() == Worth::Silent && passed(activity.accepted, limits.first_call);
            let last = activity.last.load(Ordering::Relaxed);
            if limits.silence.map_or(silent, |silence| passed(last, silence)) {
                self.close(activity);
            }
        }
    }

    /// Closes those that are silent, now and then, for ever.
    pub(crate) async fn watch(self) {
        loop {
            tokio::time::sleep(limits::LOOK_AT_CONNECTIONS).await;
            self.close_silent(self.now());
        }
    }

    pub(crate) fn handshake_failed(&self) {
        self.0.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that is counted; given back when it is dropped.
struct Place {
    id: u64,
    activity: Arc<Activity>,
    connections: Connections,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all.remove(&self.id);
        self.connections.0.left.notify_waiters();
        let Some(address) = self.activity.address else { return };
        if let Some(here) = open.addresses.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                open.addresses.remove(&address);
            }
        }
    }
}

/// Where a call comes from.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) address: IpAddr,
    activity: Arc<Activity>,
    began: Instant,
}

impl Peer {
    /// A call begins; it runs until this is dropped.
    pub(super) fn begin(&self, known: bool) -> Running {
        let activity = &self.activity;
        if known {
            activity.called.store(true, Ordering::Relaxed);
        }
        let running = Running { peer: self.clone(), known };
        running.calls().fetch_add(1, Ordering::Relaxed);
        running.touch();
        running
    }
}

/// A call that runs over a connection.
#[derive(Debug)]
pub(super) struct Running {
    peer: Peer,
    known: bool,
}

impl Running {
    fn calls(&self) -> &AtomicUsize {
        if self.known { &self.peer.activity.served } else { &self.peer.activity.strangers }
    }

    fn touch(&self) {
        let now = u64::try_from(self.peer.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.peer.activity.last.store(now, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.calls().fetch_sub(1, Ordering::Relaxed);
        self.touch();
    }
}

/// A connection: its end comes when somebody closes it.
pub struct Watched {
    stream: TcpStream,
    place: Place,
}

impl Watched {
    /// Where it comes from.
    pub(crate) fn peer(&self) -> Peer {
        // There from the beginning on.
        let address = self.place.activity.address.unwrap_or(IpAddr::from([0; 16]));
        Peer { address, activity: self.place.activity.clone(), began: self.place.connections.0.began }
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(_)) = written {
            self.place.activity.last.store(self.place.connections.now(), Ordering::Relaxed);
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.place.activity.reader.register(cx.waker());
        if self.place.activity.is_closing() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    struct Door {
        listener: TcpListener,
        connections: Connections,
        callers: Vec<TcpStream>,
    }

    impl Door {
        async fn new(all: usize) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let connections = Connections::new(ConnectionLimits { all, ..ConnectionLimits::default() });
            Self { listener, connections, callers: vec![] }
        }

        async fn enter(&mut self) -> Option<Watched> {
            self.callers.push(TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap());
            let (stream, address) = self.listener.accept().await.unwrap();
            self.connections.enter(stream, address.ip()).await
        }
    }

    fn closing(connection: &Watched) -> bool {
        connection.place.activity.is_closing()
    }

    #[tokio::test]
    async fn whoever_would_be_missed_least_makes_room() {
        let mut door = Door::new(4).await;
        let [silent, idle, strange, serving] =
            [door.enter().await, door.enter().await, door.enter().await, door.enter().await].map(Option::unwrap);
        drop(idle.peer().begin(true));
        let _strange = strange.peer().begin(false);
        let _serving = serving.peer().begin(true);
        let mut newcomers = vec![];
        for expected in [[true, false, false], [true, true, false], [true, true, true]] {
            let newcomer = door.enter().await.unwrap();
            // Whoever came last is of use as soon as it calls.
            newcomers.push((newcomer.peer().begin(true), newcomer));
            assert_eq!([&silent, &idle, &strange].map(closing), expected);
        }
        let here = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(door.connections.place(here).err(), Some(Full::Leaving), "as soon as they have left");
        drop((silent, idle, strange));
        assert!(door.enter().await.is_none() && !closing(&serving), "all that is left is in use");
        assert_eq!(door.connections.read().refused, 1);
        drop(newcomers);
        assert_eq!(door.connections.read().open, 1);
        assert!(door.enter().await.is_some());
    }

    #[tokio::test]
    async fn whoever_does_not_call_in_time_is_closed() {
        let mut door = Door::new(9).await;
        let (silent, strange, idle) =
            (door.enter().await.unwrap(), door.enter().await.unwrap(), door.enter().await.unwrap());
        drop(idle.peer().begin(true));
        drop(strange.peer().begin(false));
        let later = |seconds: u64| door.connections.now() + 1000 * seconds;
        door.connections.close_silent(later(limits::FIRST_CALL.as_secs() - 1));
        assert!(![&silent, &strange, &idle].into_iter().any(closing));
        door.connections.close_silent(later(limits::FIRST_CALL.as_secs() + 1));
        assert_eq!([&silent, &strange, &idle].map(closing), [true, true, false], "a refused call is none");
        door.connections.close_silent(later(100_000));
        assert!(!closing(&idle), "who may call may also wait");
    }
}
