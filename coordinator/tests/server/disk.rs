//! An engine on a disk that fills up, and on one that fails: what is refused, what is kept, and when it recovers.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{World, measure, world};
use evocache::engine::{Answer, Command, Refusal};
use evocache::ports::{Cleared, Fact, Room, Store, StoreError};
use evocache::store::MemoryStore;
use evocache_proto::domain::{CandidateId, SearchId};

/// A store whose commits or syncs fail on demand, and which loses what was not synced when it is reopened.
#[derive(Default)]
struct Failing {
    inner: MemoryStore,
    pending: Mutex<Vec<Fact>>,
    commit: AtomicBool,
    sync: AtomicBool,
    failed: AtomicBool,
    /// The store fails after the next commit.
    fails_next: AtomicBool,
    /// Free bytes, with a reserve of 100; 0: unknown.
    left: AtomicU64,
}

impl Failing {
    fn fail(&self, problem: &str) -> Result<(), StoreError> {
        self.failed.store(true, SeqCst);
        Err(StoreError::Failed(problem.into()))
    }
}

impl Store for Failing {
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        self.inner.replay(each)
    }
    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        if self.commit.load(SeqCst) || self.failed.load(SeqCst) {
            return self.fail("disk full");
        }
        self.pending.lock().unwrap().extend_from_slice(facts);
        self.failed.store(self.fails_next.swap(false, SeqCst), SeqCst);
        Ok(())
    }
    fn sync(&self) -> Result<(), StoreError> {
        if self.sync.load(SeqCst) || self.failed.load(SeqCst) {
            return self.fail("disk gone");
        }
        self.inner.commit(&std::mem::take(&mut *self.pending.lock().unwrap()))
    }
    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        self.inner.clear(search)
    }
    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        self.inner.thumbnails(search, candidate)
    }
    fn reopen(&self) -> Result<bool, StoreError> {
        if self.commit.load(SeqCst) || self.sync.load(SeqCst) {
            return self.fail("still").map(|()| true);
        }
        self.pending.lock().unwrap().clear();
        Ok(self.failed.swap(false, SeqCst))
    }
    fn room(&self) -> Option<Room> {
        let left = self.left.load(SeqCst);
        (left > 0).then_some(Room { left, reserve: 100 })
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_ends_new_work_then_all_writing_and_room_brings_both_back() {
    let store = Arc::new(Failing::default());
    let world = world(store.clone(), 0);
    let worker = world.register("w").await;
    world.create("s", 10).await;
    let (first, second) = (world.offer(&worker).await.unwrap(), world.offer(&worker).await.unwrap());
    // The engine checks the free space every second, by its clock.
    let room = |left: u64| {
        store.left.store(left, SeqCst);
        world.clock.advance(Duration::from_secs(1));
        world.handle.query(|_, _| ())
    };
    let create = || Command::Create { search: None, spec: crate::common::spec(5), from: vec![] };
    room(99).await.unwrap();
    // The check comes at the end of a round.
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
    world.engine.stop().unwrap();
}

/// Lets the engine try to reopen a failed store, as it does every five seconds.
async fn look_again(world: &World) {
    for _ in 0..2 {
        world.clock.advance(Duration::from_secs(5));
        // The check comes at the end of a round.
        world.handle.query(|_, _| ()).await.unwrap();
        world.handle.query(|_, _| ()).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_fails_acknowledges_nothing_and_is_opened_again() {
    let store = Arc::new(Failing::default());
    let world = world(store.clone(), 0);
    let worker = world.register("w").await;
    world.create("s", 10).await;
    let offer = world.offer(&worker).await.unwrap();
    let complete =
        Command::Complete { worker: worker.clone(), lease: offer.lease.clone(), measurement: measure(&offer.schedule) };
    let fails = |result: Result<Answer, Refusal>| assert!(matches!(result, Err(Refusal::Store(_))), "{result:?}");
    for switch in [&store.commit, &store.sync] {
        switch.store(true, SeqCst);
        fails(world.handle.command(None, complete.clone()).await);
        assert!(world.handle.meters().read().broken);
        // Until the store is open again nothing is decided, even if the disk would work.
        look_again(&world).await;
        fails(world.handle.acquire(worker.clone(), Duration::ZERO).await);
        switch.store(false, SeqCst);
        fails(world.handle.acquire(worker.clone(), Duration::ZERO).await);
        look_again(&world).await;
        assert!(!world.handle.meters().read().broken);
        let held = world.handle.query(|state, _| {
            let search = &state.searches[&SearchId::new("s").unwrap()];
            (search.evaluations.len(), search.leased.iter().copied().collect::<Vec<_>>())
        });
        assert_eq!(held.await.unwrap(), (0, vec![CandidateId(0)]), "what was not acknowledged is not there");
    }
    assert_eq!(world.handle.command(None, complete).await, Ok(Answer::Accepted));
    assert!(world.offer(&worker).await.is_some());
    world.engine.stop().unwrap();
}

#[tokio::test]
async fn what_is_acknowledged_while_the_store_fails_is_in_it_when_it_is_open_again() {
    let store = Arc::new(Failing::default());
    let world = world(store.clone(), 0);
    let worker = world.register("w").await;
    world.create("s", 200).await;
    let mut acknowledged = vec![];
    for _ in 0..10 {
        let offer = world.offer(&worker).await.unwrap();
        let command = Command::Complete {
            worker: worker.clone(),
            lease: offer.lease.clone(),
            measurement: measure(&offer.schedule),
        };
        // The store fails after the commit, and the engine tries to reopen it in the same round.
        store.fails_next.store(true, SeqCst);
        world.clock.advance(Duration::from_secs(5));
        if world.handle.command(None, command).await.is_ok() {
            acknowledged.push(offer.lease.candidate);
        }
        look_again(&world).await;
        let search = SearchId::new("s").unwrap();
        let wanted = acknowledged.clone();
        let lost = world.handle.query(move |state, _| {
            let search = &state.searches[&search];
            wanted.into_iter().filter(|&id| search.evaluation(id).is_none()).collect::<Vec<_>>()
        });
        assert_eq!(lost.await.unwrap(), vec![]);
    }
    world.engine.stop().unwrap();
}
