use evocache_domain::time::Timestamp;
use evocache_proto::domain::WorkerId;

use super::live_backup::Reading;
use super::moment::KEPT;
use super::store::SledStore;
use crate::ports::{Fact, Store};
use crate::store::stream::StreamError;

fn quarantined(worker: usize, reason: String) -> Fact {
    let worker = WorkerId::new(format!("w-{worker:04}")).unwrap();
    Fact::WorkerQuarantined { worker, reason, at: Timestamp(1) }
}

/// A store with this many records, each with a value in pieces.
fn filled(folder: &std::path::Path, records: usize) -> SledStore {
    let store = SledStore::open(folder).unwrap();
    for worker in 0..records {
        store.commit(&[quarantined(worker, "a".repeat(9_000))]).unwrap();
    }
    store
}

#[test]
fn a_moment_that_too_many_writes_overtake_is_given_up_and_the_writes_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), 40);
    let reading = Reading::begin(&store, 50_000).unwrap();
    let mut visited = 0;
    let outcome = reading.records(&mut |_, _| {
        visited += 1;
        if visited == 1 {
            (0..40).try_for_each(|worker| store.commit(&[quarantined(worker, "b".repeat(9_000))]))?;
            store.sync()?;
        }
        Ok(())
    });
    assert!(matches!(outcome, Err(StreamError::Overtaken(50_000))), "{outcome:?}");
    assert!(outcome.unwrap_err().to_string().contains("try again"));
    assert!(matches!(Reading::begin(&store, KEPT), Err(StreamError::Busy)));
    drop(reading);
    drop(store);
    let facts = SledStore::open(folder.path()).unwrap().load().unwrap();
    assert!(facts.iter().all(|fact| matches!(fact, Fact::WorkerQuarantined { reason, .. } if reason.starts_with('b'))));
    assert_eq!(facts.len(), 40);
}

#[test]
fn old_values_are_dropped_once_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path(), 40);
    let reading = Reading::begin(&store, 450_000).unwrap();
    let mut visited = 0;
    // Each record changes before it is read, and all old values together would exceed the bound.
    let outcome = reading.records(&mut |_, value| {
        assert!(value.len() > 9_000 && value.contains(&b'a'), "a later value");
        visited += 1;
        let change = |worker| store.commit(&[quarantined(worker, format!("{worker}").repeat(4_000))]);
        (visited..40.min(visited + 12)).try_for_each(change)?;
        store.sync()
    });
    assert!(outcome.is_ok() && visited == 40, "{visited} {outcome:?}");
}
