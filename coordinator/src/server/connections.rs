//! The open connections, and which of them are closed: silent ones, and if there are too many, the least useful ones.
//!
//! A connection without any call so far is closed first, the oldest one before others; then one without a running call; then
//! one with calls that need no token. A connection over which an admitted caller is served is never closed: if there is no
//! other, the new connection is refused. How connections are accepted is `incoming.rs`; who is admitted is `gate/`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::activity::{Activity, Peer, Worth};
use super::limits;

/// How many connections may be open, and how long one may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections from all addresses.
    pub all: usize,
    /// Connections from one address.
    pub each: usize,
    /// Time until the first call.
    pub first_call: Duration,
    /// Time from one answer to the next, if idle connections are closed.
    pub silence: Option<Duration>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { all: usize::MAX, each: usize::MAX, first_call: limits::FIRST_CALL, silence: None }
    }
}

/// The connections of one server. Clones share them.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    limits: ConnectionLimits,
    began: Instant,
    open: Mutex<Open>,
    /// Notified when a connection has ended.
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
    /// Open connections by address; addresses without any are removed.
    addresses: HashMap<IpAddr, usize>,
}

/// Numbers of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Open now.
    pub open: usize,
    /// Accepted so far.
    pub accepted: u64,
    /// Ended because the TLS handshake failed.
    pub handshakes_failed: u64,
    /// Refused because there were too many, and none that could be closed instead.
    pub refused: u64,
    /// Closed because they were silent or made room.
    pub closed: u64,
}

/// Why there is no room for another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// Some are closing.
    Leaving,
    /// An admitted caller is served over each.
    InUse,
}

impl Connections {
    /// No connections yet.
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

    /// The present numbers.
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

    /// Adds a connection, closing another one if necessary. `None` if there is no room.
    pub(crate) async fn enter(&self, stream: TcpStream, address: IpAddr) -> Option<Watched> {
        for _ in 0..limits::LEAVING {
            let left = self.0.left.notified();
            match self.place(address) {
                Ok(place) => return Some(Watched { stream, place }),
                Err(Full::InUse) => break,
                // They end as soon as their tasks have noticed; until then the next connections wait to be accepted.
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
        let (activity, id) = (Arc::new(Activity::new(address, now)), open.next);
        open.next += 1;
        *open.addresses.entry(address).or_default() += 1;
        open.all.insert(id, activity.clone());
        self.0.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(Place { id, activity, connections: self.clone() })
    }

    /// Closes the least useful connection. It ends when its task has noticed, so there may be a few too many for a moment.
    fn make_room(&self, open: &Open, address: Option<IpAddr>) -> Result<(), Full> {
        let candidates = open.all.values().filter(|a| address.is_none() || a.address == address);
        let (leaving, staying): (Vec<&Arc<Activity>>, Vec<_>) = candidates.partition(|a| a.is_closing());
        if leaving.len() >= limits::LEAVING {
            return Err(Full::Leaving);
        }
        let least = staying.into_iter().min_by_key(|a| (a.worth(), a.last.load(Ordering::Relaxed)));
        match least {
            Some(least) if least.worth() < Worth::Serving => self.close(least),
            // One that is closing already makes the room.
            _ if !leaving.is_empty() => return Err(Full::Leaving),
            _ => return Err(Full::InUse),
        }
        Ok(())
    }

    fn close(&self, activity: &Activity) {
        activity.close();
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes the connections that have been silent for too long.
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

    /// Closes silent connections at intervals. Never returns.
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

/// The place of a counted connection; released when it is dropped.
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

/// A counted connection. It ends when it is closed to make room or for its silence.
pub struct Watched {
    stream: TcpStream,
    place: Place,
}

impl Watched {
    /// The connection as its calls see it.
    pub(crate) fn peer(&self) -> Peer {
        // Set when the connection was added.
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
            // The last connection is in use as soon as it calls.
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
