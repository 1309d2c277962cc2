//! What happens on one connection: when it was last used, and which calls run over it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use futures::task::AtomicWaker;
use tokio::time::Instant;

/// What happens on a connection. Times are milliseconds since the server began.
#[derive(Debug, Default)]
pub(super) struct Activity {
    pub(super) address: Option<IpAddr>,
    pub(super) accepted: u64,
    /// When something was last sent, or a call last began or ended.
    pub(super) last: AtomicU64,
    /// Whether an admitted caller has ever called.
    called: AtomicBool,
    /// Running calls: of admitted callers, and those that need no token.
    served: AtomicUsize,
    strangers: AtomicUsize,
    closing: AtomicBool,
    pub(super) reader: AtomicWaker,
}

/// How much a connection would be missed, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// Without any admitted call so far.
    Silent,
    /// Without a running call.
    Idle,
    /// With running calls that need no token.
    Strange,
    /// With a running call of an admitted caller.
    Serving,
}

impl Activity {
    pub(super) fn new(address: IpAddr, now: u64) -> Self {
        Self { address: Some(address), accepted: now, last: AtomicU64::new(now), ..Self::default() }
    }

    pub(super) fn worth(&self) -> Worth {
        let runs = |calls: &AtomicUsize| calls.load(Ordering::Relaxed) > 0;
        match (runs(&self.served), runs(&self.strangers), self.called.load(Ordering::Relaxed)) {
            (true, ..) => Worth::Serving,
            (_, true, _) => Worth::Strange,
            (_, _, true) => Worth::Idle,
            (_, _, false) => Worth::Silent,
        }
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.reader.wake();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// The connection that a call comes over.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) address: IpAddr,
    pub(super) activity: Arc<Activity>,
    /// When the server began.
    pub(super) began: Instant,
}

impl Peer {
    /// Marks the beginning of a call; it runs until the mark is dropped. `known` is false for a call that needs no token.
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

/// The mark of a running call on its connection.
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
