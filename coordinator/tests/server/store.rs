//! The contract of the stores: one suite over sled and the in-memory store, then what only a disk can do wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{declaration, measure, raw, spec};
use evocache::ports::{Cleared, Fact, ModelFacts, Registration, RequestRecord, SearchState, Store, StoreError};
use evocache::store::{FORMAT_VERSION, MemoryStore, SledStore};
use evocache::upkeep::{self, UpkeepError};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease::{Failure, Grant, State};
use evocache_domain::search::{Proposal, Provenance};
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{
    Budget, CandidateId, CostModel, Epoch, Origin, PromptSet, RequestId, Schedule, SearchId, SearchUid, WorkerId,
};

fn id(text: &str) -> SearchId {
    SearchId::new(text).unwrap()
}

fn worker(text: &str) -> WorkerId {
    WorkerId::new(text).unwrap()
}

/// A fact of every kind, in the order in which a store replays them.
fn facts(search: &str) -> Vec<Fact> {
    let search = id(search);
    let declaration = declaration("w");
    let layout = Arc::new(declaration.layout.clone());
    let slots = layout.slots();
    let schedule = Arc::new(Schedule::all_compute(layout.clone(), 12).unwrap());
    let provenance = Arc::new(Provenance {
        parents: vec![CandidateId(3), CandidateId(1)],
        origin: Origin::bred(["shift"]),
        seed_family: "fora_2".into(),
    });
    let mut measurement = measure(&schedule);
    measurement.thumbnails.clear();
    let evaluation = Evaluation {
        candidate: CandidateId(1),
        schedule: schedule.clone(),
        provenance: provenance.clone(),
        measurement,
        worker: worker("w-1"),
        worker_name: "w".into(),
        device: "cpu".into(),
        started: Timestamp(5),
        finished: Timestamp(9),
        attempt: 2,
    };
    let grants = vec![Grant { epoch: Epoch(1), worker: worker("w-0") }];
    let states = [
        State::Pending { attempt: 2, not_before: Timestamp(99), grants: grants.clone() },
        State::Done { epoch: Epoch(3), worker: worker("w-1") },
        State::Leased { worker: worker("w-1"), epoch: Epoch(2), deadline: Timestamp(7), attempt: 4, grants },
        State::Failed { reason: Failure::Expired { attempts: 3 } },
        State::Failed { reason: Failure::Reported { attempts: 1, message: "NaN".into() } },
        State::Cancelled { grants: vec![Grant { epoch: Epoch(6), worker: worker("w-0") }] },
    ];
    let mut facts = vec![
        Fact::WorkerRegistered {
            worker: worker("w-1"),
            registration: Registration {
                declaration: Arc::new(declaration.clone()),
                at: Timestamp(1),
                principal: "gpu-1".into(),
            },
        },
        Fact::WorkerDraining { worker: worker("w-1") },
        Fact::WorkerQuarantined { worker: worker("w-1"), reason: "lies".into(), at: Timestamp(6) },
        Fact::SearchCreated {
            search: search.clone(),
            uid: SearchUid::new("u-1").unwrap(),
            spec: spec(10),
            at: Timestamp(2),
        },
        Fact::SearchExtended {
            search: search.clone(),
            budget: Budget { evaluations: Some(20), wall_time: Some(Duration::from_secs(60)), ..Budget::default() },
            rested: Duration::from_millis(5),
            settled: vec![12],
        },
        Fact::SearchBound {
            search: search.clone(),
            model: ModelFacts {
                fingerprint: "f1".into(),
                layout,
                metrics: declaration.metrics,
                cost: Some(CostModel {
                    slot_macs: vec![1; slots],
                    slot_cache_bytes: vec![2; slots],
                    step_macs: 3,
                    image_macs: 4,
                }),
            },
            at: Timestamp(3),
        },
        Fact::WorkerExcluded { search: search.clone(), worker: worker("w-1") },
    ];
    for i in 0..states.len() as u64 {
        facts.push(Fact::CandidateCreated {
            search: search.clone(),
            candidate: CandidateId(i),
            proposal: Proposal {
                schedule: schedule.clone(),
                provenance: provenance.clone(),
                prompts: PromptSet::from_number(2),
            },
        });
    }
    // The deadline of a lease is not stored; a replay gives the time of the grant until recovery sets a new one.
    let granted = Timestamp(7);
    let mut moved: Vec<_> = (0..)
        .zip(states)
        .map(|(i, state)| Fact::LeaseMoved { search: search.clone(), candidate: CandidateId(i), state, granted })
        .collect();
    // A lease that has ended comes with its evaluation, before the leases of candidates without one.
    facts.push(moved.remove(1));
    facts.push(Fact::Evaluated { search: search.clone(), sequence: 0, evaluation: Arc::new(evaluation) });
    facts.append(&mut moved);
    facts.push(Fact::SearchMoved { search, phase: SearchState::Paused, reason: "lunch".into(), at: Timestamp(4) });
    facts.push(Fact::RequestAnswered {
        request: RequestId::new("r-1").unwrap(),
        record: RequestRecord { kind: "create_search".into(), digest: [7; 32], subject: "s".into(), at: Timestamp(8) },
    });
    facts
}

fn evaluation_of(facts: &[Fact]) -> &Arc<Evaluation> {
    let evaluated = |fact: &_| matches!(fact, Fact::Evaluated { .. });
    let Some(Fact::Evaluated { evaluation, .. }) = facts.iter().find(|f| evaluated(f)) else { panic!("{facts:?}") };
    evaluation
}

/// Removes all records of a deleted search in parts, as the engine does.
fn clear(store: &dyn Store, search: &str) {
    while store.clear(&id(search)).unwrap() != Cleared::All {}
    store.commit(&[Fact::SearchCleared { search: id(search) }]).unwrap();
}

fn suite(store: &dyn Store) {
    assert_eq!(store.load().unwrap(), vec![], "a new store is empty");
    let all = facts("s");
    store.commit(&all).unwrap();
    store.sync().unwrap();
    assert_eq!(store.load().unwrap(), all);

    // A later fact about the same thing replaces the earlier one.
    let moved =
        Fact::SearchMoved { search: id("s"), phase: SearchState::Stopped, reason: String::new(), at: Timestamp(9) };
    store.commit(std::slice::from_ref(&moved)).unwrap();
    let loaded = store.load().unwrap();
    assert_eq!(loaded.len(), all.len());
    assert!(loaded.contains(&moved));

    // Thumbnails are stored beside the evaluation and read on demand.
    let evaluation = evaluation_of(&all);
    let mut pictured = Evaluation::clone(evaluation);
    pictured.candidate = CandidateId(0);
    pictured.measurement.thumbnails = vec![vec![1; 3000], vec![2]];
    let pictured = Fact::Evaluated { search: id("s"), sequence: 1, evaluation: Arc::new(pictured) };
    store.commit(&[pictured]).unwrap();
    assert_eq!(store.thumbnails(&id("s"), CandidateId(0)).unwrap(), vec![vec![1; 3000], vec![2]]);
    assert_eq!(store.thumbnails(&id("s"), CandidateId(1)).unwrap(), Vec::<Vec<u8>>::new());

    // Deleting removes all of one search and nothing of another, even if that one's id starts with its own.
    store.commit(&facts("s-2")).unwrap();
    let deleted = Fact::SearchDeleted { search: id("s") };
    store.commit(std::slice::from_ref(&deleted)).unwrap();
    let mut left = facts("s-2");
    left.insert(3, deleted);
    assert_eq!(store.load().unwrap(), left, "its records go one after the other");
    clear(store, "s");
    assert_eq!(store.load().unwrap(), facts("s-2"));
    assert_eq!(store.thumbnails(&id("s"), CandidateId(0)).unwrap(), Vec::<Vec<u8>>::new());
    store
        .commit(&[
            Fact::SearchDeleted { search: id("s-2") },
            Fact::WorkerForgotten { worker: worker("w-1") },
            Fact::RequestForgotten { request: RequestId::new("r-1").unwrap() },
        ])
        .unwrap();
    clear(store, "s-2");
    assert_eq!(store.load().unwrap(), vec![]);
}

/// Facts that are decided together share a record; later ones get their own.
fn a_life_in_two_records(store: &dyn Store) {
    let all = facts("s");
    let of = |kind: fn(&Fact) -> bool| all.iter().filter(move |f| kind(f)).cloned();
    store
        .commit(&of(|f| matches!(f, Fact::SearchCreated { .. } | Fact::SearchBound { .. })).collect::<Vec<_>>())
        .unwrap();
    let created = of(|f| matches!(f, Fact::CandidateCreated { candidate: CandidateId(0 | 1), .. })).collect::<Vec<_>>();
    let moved = |i: u64, state: State, at: u64| Fact::LeaseMoved {
        search: id("s"),
        candidate: CandidateId(i),
        state,
        granted: Timestamp(at),
    };
    let leased = |epoch: u64, deadline: u64, grants: Vec<Grant>| State::Leased {
        worker: worker("w-1"),
        epoch: Epoch(epoch),
        deadline: Timestamp(deadline),
        attempt: 1,
        grants,
    };
    let leases = |store: &dyn Store| -> Vec<Fact> {
        store.load().unwrap().into_iter().filter(|f| matches!(f, Fact::LeaseMoved { .. })).collect()
    };
    for (i, created) in (0..).zip(created) {
        store.commit(&[created, moved(i, leased(1, 99, vec![]), 4)]).unwrap();
    }
    assert_eq!(leases(store), [moved(0, leased(1, 4, vec![]), 4), moved(1, leased(1, 4, vec![]), 4)]);
    // A second grant gets its own record, which replaces the first lease.
    let grants = vec![Grant { epoch: Epoch(1), worker: worker("w-1") }];
    store.commit(&[moved(1, leased(2, 99, grants.clone()), 5)]).unwrap();
    assert_eq!(leases(store)[1], moved(1, leased(2, 5, grants), 5));
    // The evaluation ends it.
    let done = State::Done { epoch: Epoch(2), worker: worker("w-1") };
    let evaluated = of(|f| matches!(f, Fact::Evaluated { .. })).next().unwrap();
    store.commit(&[moved(1, done.clone(), 5), evaluated.clone()]).unwrap();
    assert_eq!(leases(store)[0], moved(1, done, 5));
    assert!(store.load().unwrap().contains(&evaluated));
}

#[test]
fn both_stores_keep_a_candidate_and_its_end_in_two_records() {
    a_life_in_two_records(&MemoryStore::new());
    let folder = tempfile::tempdir().unwrap();
    a_life_in_two_records(&SledStore::open(folder.path()).unwrap());
    let keys = |prefix: &[u8]| raw(folder.path()).scan_prefix(prefix).count();
    assert_eq!((keys(b"c/"), keys(b"e/"), keys(b"l/")), (2, 1, 1));
}

#[test]
fn both_stores_keep_the_contract() {
    suite(&MemoryStore::new());
    let folder = tempfile::tempdir().unwrap();
    suite(&SledStore::open(folder.path()).unwrap());
}

#[test]
fn a_store_that_is_opened_again_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    SledStore::open(folder.path()).unwrap().commit(&facts("s")).unwrap();
    assert_eq!(SledStore::open(folder.path()).unwrap().load().unwrap(), facts("s"));
}

fn refusal(path: &Path) -> StoreError {
    SledStore::open(path).unwrap_err()
}

#[test]
fn a_store_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _open = SledStore::open(folder.path()).unwrap();
    assert!(matches!(refusal(folder.path()), StoreError::Locked { path } if path == folder.path().to_string_lossy()));
}

#[test]
fn a_store_of_another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    let older = (0..FORMAT_VERSION).map(|version| (version, "development build"));
    for (version, way_out) in older.chain([(FORMAT_VERSION + 1, "newer evocache")]) {
        let db = raw(folder.path());
        db.insert(b"!format", &version.to_be_bytes()).unwrap();
        drop(db);
        let error = refusal(folder.path());
        assert!(matches!(&error, StoreError::Version { found, .. } if *found == version), "{error}");
        let hint = UpkeepError::from(error).hint().unwrap();
        assert!(hint.contains(way_out), "{version}: {hint}");
    }
}

#[test]
fn a_folder_of_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "precious").unwrap();
    let error = refusal(folder.path()).to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(matches!(refusal(&folder.path().join("thesis.tex")), StoreError::Foreign { .. }));

    let other = tempfile::tempdir().unwrap();
    let db = raw(other.path());
    db.insert(b"mine", b"not yours").unwrap();
    drop(db);
    assert!(matches!(refusal(other.path()), StoreError::Foreign { found, .. } if found.contains("another program")));
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    SledStore::open(folder.path()).unwrap().commit(&facts("s")).unwrap();
    let db = raw(folder.path());
    db.insert(b"p/s", &[0x08, 99]).unwrap();
    drop(db);
    let error = SledStore::open(folder.path()).unwrap().load().unwrap_err();
    assert_eq!(error, StoreError::Corrupt { key: "p/s".into(), problem: "unknown phase 99".into() });
}

/// Facts of a search whose evaluation has pictures of this many bytes each, and the pictures.
pub(crate) fn pictured(search: &str, bytes: u32) -> (Vec<Fact>, Vec<Vec<u8>>) {
    let mut all = facts(search);
    let pictures: Vec<Vec<u8>> =
        (0..4u8).map(|i| (0..bytes).map(|j| (j as u8).wrapping_mul(i + 3)).collect()).collect();
    let evaluated = all.iter_mut().find_map(|fact| match fact {
        Fact::Evaluated { evaluation, .. } => Some(evaluation),
        _ => None,
    });
    Arc::make_mut(evaluated.unwrap()).measurement.thumbnails = pictures.clone();
    (all, pictures)
}

#[test]
fn large_values_are_split_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    // Larger than the values that sled keeps in its log.
    let (all, pictures) = pictured("s", 200_000);
    store.commit(&all).unwrap();
    store.sync().unwrap();
    assert_eq!(store.thumbnails(&id("s"), CandidateId(1)).unwrap(), pictures);
    let blobs = std::fs::read_dir(folder.path().join("blobs")).unwrap().count();
    assert_eq!(blobs, 0, "sled never syncs what it puts into files of their own");
    drop(store);
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(store.thumbnails(&id("s"), CandidateId(1)).unwrap(), pictures);
    store
        .commit(&[
            Fact::SearchDeleted { search: id("s") },
            Fact::WorkerForgotten { worker: worker("w-1") },
            Fact::RequestForgotten { request: RequestId::new("r-1").unwrap() },
        ])
        .unwrap();
    // A store that is opened between two parts has everything that is left.
    let mut store = store;
    for _ in 0..100 {
        drop(store);
        assert!(upkeep::check(folder.path(), &mut |_, _| {}).unwrap().is_sound());
        store = SledStore::open(folder.path()).unwrap();
        assert_eq!(store.load().unwrap(), [Fact::SearchDeleted { search: id("s") }]);
        if store.clear(&id("s")).unwrap() == Cleared::All {
            break;
        }
    }
    store.commit(&[Fact::SearchCleared { search: id("s") }]).unwrap();
    drop(store);
    let keys: Vec<_> = raw(folder.path()).iter().keys().map(Result::unwrap).collect();
    assert_eq!(keys, [sled::IVec::from(b"!format"), sled::IVec::from(b"!mark")]);
}

#[test]
fn a_large_value_may_change_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.commit(&facts("s")).unwrap();
    let quarantined = |reason: char, length: usize| Fact::WorkerQuarantined {
        worker: worker("w-1"),
        reason: reason.to_string().repeat(length),
        at: Timestamp(6),
    };
    let holds = |store: &SledStore, fact: &Fact| assert!(store.load().unwrap().contains(fact));
    let (a, b, small) = (quarantined('a', 10_000), quarantined('b', 90_000), quarantined('c', 1));
    // All in one batch, then each in its own.
    for apart in [false, true] {
        for fact in [&a, &b, &a, &small, &b, &b, &a] {
            store.commit(std::slice::from_ref(fact)).unwrap();
            if apart {
                holds(&store, fact);
            }
        }
        holds(&store, &a);
    }
    store.commit(std::slice::from_ref(&small)).unwrap();
    holds(&store, &small);
    drop(store);
    holds(&SledStore::open(folder.path()).unwrap(), &small);
    assert_eq!(raw(folder.path()).scan_prefix(b"~").count(), 0, "pieces of values that are gone");
}

#[test]
fn an_interrupted_creation_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let making = folder.path().join(".creating/database");
    std::fs::create_dir_all(making.join("blobs")).unwrap();
    std::fs::write(making.join("conf"), "segment_si").unwrap();
    std::fs::write(folder.path().join("conf"), "").unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.commit(&facts("s")).unwrap();
    drop(store);
    assert_eq!(SledStore::open(folder.path()).unwrap().load().unwrap(), facts("s"));
    assert!(!folder.path().join(".creating").exists());
}

#[test]
fn an_unfinished_snapshot_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    SledStore::open(folder.path()).unwrap().commit(&facts("s")).unwrap();
    std::fs::write(folder.path().join("snap.7FFFFFFFFFFFFFFF.generating"), "half").unwrap();
    assert_eq!(SledStore::open(folder.path()).unwrap().load().unwrap(), facts("s"));
}
