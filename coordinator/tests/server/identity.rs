//! A search that is deleted and created again under its id is another one: leases, calibrations and results of the first
//! never reach the second, however a worker keeps them.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{World, draft, measure, spec, world};
use evocache::engine::{Command, Move, Offer, Refusal};
use evocache::ports::Store;
use evocache::store::{MemoryStore, SledStore};
use evocache_proto::domain::{SearchId, SearchRef, SearchUid, WorkerId};

impl World {
    async fn end_and_delete(&self, search: &SearchId) {
        for to in [Move::Stop, Move::Delete] {
            self.handle.command(None, Command::Move { search: search.clone(), to }).await.unwrap();
        }
    }

    async fn completed(&self, worker: &WorkerId, offer: &Offer) -> Result<evocache::engine::Answer, Refusal> {
        let (lease, measurement) = (offer.lease.clone(), measure(&offer.schedule));
        self.handle.command(None, Command::Complete { worker: worker.clone(), lease, measurement }).await
    }

    async fn evaluations(&self, search: &SearchId) -> usize {
        let search = search.clone();
        self.handle.query(move |state, _| state.searches[&search].evaluations.len()).await.unwrap()
    }
}

#[tokio::test]
async fn a_lease_of_a_deleted_search_is_superseded_when_its_id_is_used_again() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 20).await;
    let old = world.offer(&worker).await.unwrap();
    world.end_and_delete(&search).await;
    assert_eq!(world.completed(&worker, &old).await, Err(Refusal::NoSearch(search.clone())));

    world.create("s", 20).await;
    let new = world.offer(&worker).await.unwrap();
    assert_eq!(old.lease.candidate, new.lease.candidate);
    assert_ne!(old.lease.search, new.lease.search, "the same id, another search");
    assert!(new.lease.epoch > old.lease.epoch, "epochs never begin again");
    assert_eq!(world.completed(&worker, &old).await, Err(Refusal::Superseded(old.lease.clone())));
    // Whoever makes the name up, or knows only the id, has the epoch against him.
    let mut forged = new.clone();
    forged.lease.epoch = old.lease.epoch;
    assert_eq!(world.completed(&worker, &forged).await, Err(Refusal::Superseded(forged.lease.clone())));
    assert_eq!(world.evaluations(&search).await, 0);

    // Renewals tell the worker to drop it, releases and failures change nothing.
    let renew = Command::Renew { worker: worker.clone(), leases: vec![old.lease.clone(), new.lease.clone()] };
    let evocache::engine::Answer::Renewed { leases, .. } = world.handle.command(None, renew).await.unwrap() else {
        panic!("no renewals");
    };
    assert_eq!(leases.iter().map(|l| l.ttl.is_some()).collect::<Vec<_>>(), [false, true]);
    let fail = |lease| Command::Fail { worker: worker.clone(), lease, reason: "late".into(), retryable: false };
    let failed = world.handle.command(None, fail(old.lease.clone())).await;
    assert_eq!(failed, Err(Refusal::Superseded(old.lease.clone())));
    world.completed(&worker, &new).await.unwrap();
    assert_eq!(world.evaluations(&search).await, 1);
}

/// The store of a large search is cleared part by part: meanwhile it is gone for everybody, and no other has its id. A
/// restart in between goes on with that.
#[tokio::test]
async fn the_id_of_a_deleted_search_is_free_when_nothing_is_left_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap()) as Arc<dyn Store>;
    let mut world = world(open(), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 1000).await;
    world.work(&worker, 500).await;
    world.end_and_delete(&search).await;
    let create = || Command::Create { search: Some(search.clone()), spec: spec(20), from: vec![] };
    assert_eq!(world.handle.command(None, create()).await, Err(Refusal::BeingDeleted(search.clone())));
    world.engine.stop().unwrap();
    world = crate::common::world(open(), 1000);
    let left = world.handle.query(|state, _| (state.searches.len(), state.deleted.len())).await.unwrap();
    assert_eq!(left, (0, 1), "a thousand records and more are not removed at once");
    while let Err(refusal) = world.handle.command(None, create()).await {
        assert_eq!(refusal, Refusal::BeingDeleted(search.clone()));
    }
    assert_eq!(world.evaluations(&search).await, 0);
    world.engine.stop().unwrap();
    assert!(evocache::upkeep::check(folder.path(), &mut |_, _| {}).unwrap().is_sound());
    let records = crate::common::raw(folder.path()).iter().keys().map(|key| key.unwrap()).collect::<Vec<_>>();
    assert!(records.iter().all(|key| !key.starts_with(b"c/") && !key.starts_with(b"g/")), "{}", records.len());
}

#[tokio::test]
async fn a_search_keeps_its_identity_over_a_restart_and_epochs_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(SledStore::open(folder.path()).unwrap()) as Arc<dyn Store>;
    let before = world(open(), 0);
    let worker = before.register("w").await;
    before.create("s", 20).await;
    let first = before.offer(&worker).await.unwrap();
    before.engine.stop().unwrap();
    // The clock stands where it stood: only what is stored can tell which epochs were used.
    let after = world(open(), 1000);
    let other = after.register("other").await;
    let second = after.offer(&other).await.unwrap();
    assert_eq!(first.lease.search, second.lease.search);
    assert!(second.lease.epoch > first.lease.epoch);
    after.completed(&worker, &first).await.unwrap();
    after.engine.stop().unwrap();
}

#[tokio::test]
async fn an_epoch_follows_the_clock_so_that_an_older_backup_gives_none_again() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    world.create("s", 20).await;
    let first = world.offer(&worker).await.unwrap();
    world.clock.advance(Duration::from_secs(3600));
    let later = world.offer(&worker).await.unwrap();
    assert!(later.lease.epoch.0 >= first.lease.epoch.0 + 3_600_000_000, "{} {}", first.lease.epoch, later.lease.epoch);
}

#[tokio::test]
async fn a_calibration_is_given_for_the_search_of_the_lease_and_no_other() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let worker = world.register("w").await;
    let search = world.create("s", 20).await;
    let old = world.offer(&worker).await.unwrap().lease.search;
    world.end_and_delete(&search).await;
    let mut other = draft(20);
    other.prompts[0].text = "another prompt".into();
    world.create_from("s", other, &[]).await;
    let new = world.offer(&worker).await.unwrap().lease.search;
    let found = world.handle.query(move |state, _| {
        let search = &state.searches[&search];
        (search.is(&old), search.is(&new), search.spec.prompts[0].text.clone())
    });
    assert_eq!(found.await.unwrap(), (false, true, "another prompt".to_owned()));
    let made_up = SearchRef { id: SearchId::new("s").unwrap(), uid: SearchUid::new("s").unwrap() };
    let found = world.handle.query(move |state, _| state.searches[&made_up.id].is(&made_up)).await;
    assert!(!found.unwrap());
}

#[tokio::test]
async fn a_worker_that_deregisters_is_no_longer_listed_and_what_it_has_is_for_others() {
    let world = world(Arc::new(MemoryStore::new()), 0);
    let (leaver, stayer) = (world.register("leaver").await, world.register("stayer").await);
    world.create("s", 20).await;
    let lost = world.offer(&leaver).await.unwrap();
    let deregister = Command::Deregister { worker: leaver.clone() };
    world.handle.command(None, deregister.clone()).await.unwrap();
    assert_eq!(world.handle.command(None, deregister).await, Err(Refusal::NoWorker(leaver.clone())));
    let asked = leaver.clone();
    assert!(!world.handle.query(move |state, _| state.workers.contains_key(&asked)).await.unwrap());
    let found = world.offer(&stayer).await.unwrap();
    assert_eq!((found.lease.candidate, found.attempt), (lost.lease.candidate, 1), "giving it back is no attempt");
}

#[tokio::test]
async fn after_a_restart_a_worker_was_last_seen_when_it_was_last_seen() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let before = world(store.clone(), 0);
    let (idle, busy) = (before.register("idle").await, before.register("busy").await);
    before.create("s", 20).await;
    let registered = before.handle.query(|_, now| now).await.unwrap();
    before.clock.advance(Duration::from_secs(40));
    before.work(&busy, 1).await;
    before.engine.stop().unwrap();

    let after = world(store, 1000);
    let seen = after.handle.query(move |state, _| (state.workers[&idle].seen, state.workers[&busy].seen));
    assert_eq!(seen.await.unwrap(), (registered, registered.plus(Duration::from_secs(40))));
    // Nobody is forgotten for having been silent while the coordinator was away.
    after.handle.command(None, Command::Tidy).await.unwrap();
    assert_eq!(after.handle.query(|state, _| state.workers.len()).await.unwrap(), 2);
}
