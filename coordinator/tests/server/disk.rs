//! A disk that fills up, and one that fails, against an engine: what is refused, what is kept, and what brings it back.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{measure, world};
use evocache::engine::{Answer, Command, Refusal};
use evocache::ports::{Fact, Room, Store, StoreError};
use evocache::store::MemoryStore;
use evocache_proto::domain::{CandidateId, SearchId};

/// A store whose commits or flushes fail when told.
#[derive(Default)]
struct Failing {
    inner: MemoryStore,
    commit: std::sync::atomic::AtomicBool,
    sync: std::sync::atomic::AtomicBool,
    /// Bytes left, of a reserve of 100; 0: unknown.
    left: std::sync::atomic::AtomicU64,
}

impl Store for Failing {
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        self.inner.replay(each)
    }
    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        match self.commit.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(StoreError::Failed("disk full".into())),
            false => self.inner.commit(facts),
        }
    }
    fn sync(&self) -> Result<(), StoreError> {
        match self.sync.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(StoreError::Failed("disk gone".into())),
            false => Ok(()),
        }
    }
    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        self.inner.thumbnails(search, candidate)
    }
    fn room(&self) -> Option<Room> {
        let left = self.left.load(std::sync::atomic::Ordering::SeqCst);
        (left > 0).then_some(Room { left, reserve: 100 })
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_ends_new_work_then_all_writing_and_room_brings_both_back() {
    use std::sync::atomic::Ordering::SeqCst;
    let store = Arc::new(Failing::default());
    let world = world(store.clone(), 0);
    let worker = world.register("w").await;
    world.create("s", 10).await;
    let (first, second) = (world.offer(&worker).await.unwrap(), world.offer(&worker).await.unwrap());
    // The clock looks at the room.
    let room = |left: u64| {
        store.left.store(left, SeqCst);
        world.clock.advance(Duration::from_secs(1));
        world.handle.query(|_, _| ())
    };
    let create = || Command::Create { search: None, spec: crate::common::spec(5), from: vec![] };
    room(99).await.unwrap();
    // The look comes at the end of a round.
    room(99).await.unwrap();
    assert!(world.offer(&worker).await.is_none());
    let refused = world.handle.command(None, create()).await;
    assert_eq!(refused, Err(Refusal::Full(Room { left: 99, reserve: 100 })));
    world.complete(&worker, &first.lease, &first.schedule).await;
    room(24).await.unwrap();
    room(24).await.unwrap();
    let before = world.digest().await;
    let complete = || Command::Complete {
        worker: worker.clone(),
        lease: second.lease.clone(),
        measurement: measure(&second.schedule),
    };
    assert!(matches!(world.handle.command(None, complete()).await, Err(Refusal::Full(_))));
    assert_eq!(world.digest().await, before, "what is refused leaves no trace");
    assert_eq!(world.handle.meters().read().room, Some(Room { left: 24, reserve: 100 }));
    room(100).await.unwrap();
    room(100).await.unwrap();
    assert_eq!(world.handle.command(None, complete()).await, Ok(Answer::Accepted));
    assert!(world.offer(&worker).await.is_some());
    assert!(world.handle.command(None, create()).await.is_ok());
    world.engine.stop();
}

#[tokio::test]
async fn a_store_that_fails_leaves_memory_untouched_and_nothing_is_acknowledged() {
    use std::sync::atomic::Ordering::SeqCst;
    let store = Arc::new(Failing::default());
    let world = world(store.clone(), 0);
    let worker = world.register("w").await;
    world.create("s", 10).await;
    let offer = world.offer(&worker).await.unwrap();
    let before = world.digest().await;
    store.commit.store(true, SeqCst);
    let complete =
        Command::Complete { worker: worker.clone(), lease: offer.lease.clone(), measurement: measure(&offer.schedule) };
    assert!(matches!(world.handle.command(None, complete.clone()).await, Err(Refusal::Store(_))));
    assert_eq!(world.digest().await, before);
    // Room again: the same call goes through.
    store.commit.store(false, SeqCst);
    assert_eq!(world.handle.command(None, complete).await, Ok(Answer::Accepted));
    // A flush that fails is worse: what is on disk is unknown, so nothing more is decided.
    store.sync.store(true, SeqCst);
    let next = world.handle.acquire(worker.clone(), Duration::ZERO).await;
    assert!(matches!(next, Err(Refusal::Store(_))), "{next:?}");
    store.sync.store(false, SeqCst);
    assert!(matches!(world.handle.acquire(worker, Duration::ZERO).await, Err(Refusal::Store(_))));
}
