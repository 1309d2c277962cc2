//! Numbers that no worker can have measured are refused by name, and those that are stored all the same stop nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{TTL, World, measure, world};
use evocache::engine::{Answer, Command, LEASES_PER_WORKER, Offer, Refusal};
use evocache::ports::{Cleared, Fact, Store, StoreError};
use evocache::store::{MemoryStore, SledStore};
use evocache_proto::domain::{CandidateId, Measurement, SearchId, WorkerId};

impl World {
    async fn leases(&self, worker: &WorkerId) -> usize {
        let worker = worker.clone();
        self.handle.query(move |state, _| state.workers[&worker].leases).await.unwrap()
    }

    async fn report(
        &self,
        worker: &WorkerId,
        offer: &Offer,
        change: impl Fn(&mut Measurement),
    ) -> Result<Answer, Refusal> {
        let mut measurement = measure(&offer.schedule);
        change(&mut measurement);
        let lease = offer.lease.clone();
        self.handle.command(None, Command::Complete { worker: worker.clone(), lease, measurement }).await
    }
}

#[tokio::test]
async fn what_cannot_have_been_measured_is_refused_by_name() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    world.create("s", 20).await;
    let offer = world.offer(&worker).await.unwrap();
    type Change = fn(&mut Measurement);
    let lies: [(&str, Change); 7] = [
        ("device_time", |m| m.device_time = Duration::new(i64::MAX as u64, 0)),
        ("device_time", |m| m.device_time = Duration::from_secs(3600)),
        ("latency_us", |m| m.latency_us[0] = 5e-324),
        ("baseline_latency_us", |m| m.baseline_latency_us[0] = f64::INFINITY),
        ("likeness", |m| m.metrics[0].values[0] = f64::MAX),
        ("macs", |m| m.macs = u64::MAX),
        ("peak_cache_bytes", |m| m.peak_cache_bytes = u64::MAX),
    ];
    for (name, change) in lies {
        let refusal = world.report(&worker, &offer, change).await.unwrap_err();
        assert!(matches!(&refusal, Refusal::Measurement(text) if text.contains(name)), "{name}: {refusal}");
    }
    // An hour is fine for whoever had an hour.
    world.clock.advance(Duration::from_secs(3600));
    world.report(&worker, &offer, |m| m.device_time = Duration::from_secs(3600)).await.unwrap();
}

#[tokio::test]
async fn another_result_for_a_finished_lease_is_refused_and_the_same_is_not() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    world.create("s", 20).await;
    let offer = world.offer(&worker).await.unwrap();
    for _ in 0..2 {
        assert_eq!(world.report(&worker, &offer, |_| {}).await, Ok(Answer::Accepted));
    }
    let other = world.report(&worker, &offer, |m| m.latency_us[0] += 1.0).await;
    assert_eq!(other, Err(Refusal::ResultDiffers(offer.lease.clone())));
}

#[tokio::test]
async fn a_worker_that_only_takes_is_given_no_more_than_it_can_renew() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    // A search without results hands out a few, so there are several.
    for search in 0..10 {
        world.create(&format!("s-{search}"), 1000).await;
    }
    let mut held = vec![];
    while held.len() < LEASES_PER_WORKER {
        held.push(world.offer(&worker).await.expect("ten searches have a hundred candidates"));
    }
    let more = world.handle.acquire(worker.clone(), Duration::ZERO).await;
    assert_eq!(more, Err(Refusal::TooManyLeases(worker.clone())));
    world.report(&worker, &held[0], |_| {}).await.unwrap();
    assert!(world.offer(&worker).await.is_some(), "one was given back");
    assert_eq!(world.leases(&worker).await, LEASES_PER_WORKER);
    world.clock.advance(TTL + Duration::from_millis(1));
    world.tick().await;
    assert_eq!(world.leases(&worker).await, 0, "expired leases are nobody's");
}

/// Results that an older program took: their sum is more than a duration can hold.
#[tokio::test]
async fn a_store_with_impossible_sums_is_replayed_and_worked_on() {
    let memory = Arc::new(MemoryStore::new());
    let before = world(memory.clone(), 0);
    let worker = before.register("w").await;
    let search = before.create("s", 20).await;
    assert_eq!(before.work(&worker, 2).await, 2);
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap());
    let mut facts = vec![];
    memory.replay(&mut |fact| facts.push(fact)).unwrap();
    for fact in &mut facts {
        if let Fact::Evaluated { sequence, evaluation, .. } = fact {
            let poisoned = Arc::make_mut(evaluation);
            poisoned.measurement.device_time = Duration::new(i64::MAX as u64 - *sequence, 0);
            poisoned.measurement.peak_cache_bytes = u64::MAX;
            poisoned.measurement.macs = u64::MAX;
        }
    }
    before.engine.stop().unwrap();
    let store = open();
    facts.iter().for_each(|fact| store.commit(std::slice::from_ref(fact)).unwrap());
    store.sync().unwrap();
    drop(store);

    let after = world(open(), 1000);
    let id = search.clone();
    let summed = after.handle.query(move |state, _| state.searches[&id].totals.device_time).await.unwrap();
    assert!(summed > Duration::from_secs(i64::MAX as u64), "the poison is there: {summed:?}");
    assert!(after.work(&worker, 5).await > 0, "and work goes on");
    let id = search.clone();
    let told = after.handle.query(move |state, _| state.searches[&id].evaluation(CandidateId(2)).is_some());
    assert!(told.await.unwrap());
    after.tick().await;
    after.engine.stop().unwrap();
}

/// A store that panics when it is told to, as a bug of ours would.
struct Panicking {
    inner: MemoryStore,
    armed: std::sync::atomic::AtomicBool,
}

impl Store for Panicking {
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        self.inner.replay(each)
    }
    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        assert!(!self.armed.load(std::sync::atomic::Ordering::SeqCst), "planted");
        self.inner.commit(facts)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }
    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        self.inner.clear(search)
    }
    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        self.inner.thumbnails(search, candidate)
    }
}

#[tokio::test]
async fn a_panic_of_the_engine_is_told_and_nobody_waits_for_it() {
    let store = Arc::new(Panicking { inner: MemoryStore::new(), armed: false.into() });
    let world = world(store.clone(), 0);
    let worker = world.register("w").await;
    world.create("s", 20).await;
    let offer = world.offer(&worker).await.unwrap();
    store.armed.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(world.report(&worker, &offer, |_| {}).await, Err(Refusal::Stopping));
    assert_eq!(world.engine.panicked().await.0, "planted");
    assert!(world.engine.has_panicked());
    assert_eq!(world.handle.query(|_, _| ()).await, Err(Refusal::Stopping));
    assert_eq!(world.engine.stop().unwrap_err().0, "planted");
    // What was answered is there for the next.
    store.armed.store(false, std::sync::atomic::Ordering::SeqCst);
    let next = crate::common::world(store, 1000);
    next.report(&worker, &offer, |_| {}).await.unwrap();
    next.engine.stop().unwrap();
}
