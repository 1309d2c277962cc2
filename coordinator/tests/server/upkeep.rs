//! The offline tools on real stores: copies are equal, damage is found, and unusable stores are refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evocache::ports::{Store, StoreError};
use evocache::server::{Security, ServeOptions, start};
use evocache::store::SledStore;
use evocache::upkeep::{self, UpkeepError};

use crate::common::{World, raw, world};

/// A store in the middle of a search, and the digest of the state that a coordinator makes of it.
async fn filled(data: &Path) -> String {
    let world = open(data, 0);
    let worker = world.register("w").await;
    world.create("done", 20).await;
    world.work(&worker, 20).await;
    world.create("open", 60).await;
    world.work(&worker, 30).await;
    world.offer(&worker).await.unwrap();
    world.engine.stop().unwrap();
    state(data).await
}

fn open(data: &Path, first_id: u64) -> World {
    world(Arc::new(SledStore::open(data).unwrap()), first_id)
}

async fn state(data: &Path) -> String {
    let world = open(data, 1000);
    let digest = world.digest().await;
    world.engine.stop().unwrap();
    digest
}

fn quiet(_: u64, _: u64) {}

fn plant(data: &Path, key: &[u8], value: &[u8]) {
    let db = raw(data);
    db.insert(key, value).unwrap();
}

#[tokio::test]
async fn a_restored_backup_is_the_same_state() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let before = filled(&data).await;
    let (file, written) = upkeep::backup(&data, folder.path(), "named", &mut quiet).unwrap();
    assert_eq!(file, folder.path().join("named"));
    assert_eq!(std::fs::metadata(&file).unwrap().len(), written.bytes);
    // An empty folder counts as none; a slash at the end names the same folder.
    std::fs::create_dir(&copy).unwrap();
    let slashed = format!("{}/", copy.display());
    assert_eq!(upkeep::restore(&file, Path::new(&slashed), &mut quiet).unwrap(), written);
    assert_eq!(state(&copy).await, before);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "nothing is left over: {left:?}");

    // Equal stores give equal files.
    let (again, _) = upkeep::backup(&copy, &folder.path().join("again"), "unused", &mut quiet).unwrap();
    assert!(std::fs::read(again).unwrap() == std::fs::read(&file).unwrap());
    assert!(matches!(upkeep::backup(&data, &file, "unused", &mut quiet), Err(UpkeepError::Exists(_))));
    assert!(matches!(upkeep::restore(&file, &copy, &mut quiet), Err(UpkeepError::NotEmpty(_))));
}

#[tokio::test]
async fn a_backup_that_has_changed_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    filled(&data).await;
    let (file, _) = upkeep::backup(&data, &folder.path().join("whole"), "unused", &mut quiet).unwrap();
    let whole = std::fs::read(file).unwrap();
    let bad = folder.path().join("bad");
    let refused = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        let refused = upkeep::restore(&bad, &copy, &mut quiet);
        assert!(!copy.exists());
        matches!(refused, Err(UpkeepError::Backup { .. }))
    };
    for at in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        assert!(refused(&changed), "byte {at} of {}", whole.len());
    }
    assert!(refused(&whole[..whole.len() - 1]) && refused(&whole[..7]) && refused(b"not a backup, but a text"));
    assert!(refused(&[&whole[..], b"."].concat()));
    std::fs::write(&bad, &whole).unwrap();
    upkeep::restore(&bad, &copy, &mut quiet).unwrap();
}

#[tokio::test]
async fn a_check_counts_what_is_there_and_names_what_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    filled(&data).await;
    let checked = upkeep::check(&data, &mut quiet).unwrap();
    assert!(checked.is_sound(), "{checked:?}");
    let searches: Vec<_> = checked.searches.iter().map(|s| (s.id.as_str(), s.phase.as_str(), s.evaluations)).collect();
    assert_eq!(searches, [("done", "completed", 20), ("open", "running", 30)]);
    assert!(checked.kinds.contains(&("evaluations", 50)) && checked.kinds.contains(&("workers", 1)));

    // It can be decoded and is invalid: only a whole replay finds it.
    plant(&data, b"p/open", &[0x08, 99]);
    let checked = upkeep::check(&data, &mut quiet).unwrap();
    assert_eq!((checked.damaged[0].key.as_str(), checked.damages), ("p/open", 1));
    // Unreadable, without its search, of no known kind: each is named.
    plant(&data, b"s/open", b"\xff\xff");
    plant(&data, b"p/gone", &[0x08, 1]);
    plant(&data, b"x", b"");
    let checked = upkeep::check(&data, &mut quiet).unwrap();
    let keys: Vec<_> = checked.damaged.iter().map(|d| d.key.as_str()).collect();
    assert_eq!(keys, ["p/gone", "s/open", "x"]);
    assert!(!checked.is_sound());
}

#[tokio::test]
async fn records_that_contradict_each_other_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    let db = raw(folder.path());
    db.remove(b"e/done\0\0\0\0\0\0\0\0\x03").unwrap().unwrap();
    drop(db);
    let checked = upkeep::check(folder.path(), &mut quiet).unwrap();
    let contradiction = checked.contradiction.clone().unwrap();
    assert!(contradiction.contains("'done'") && contradiction.contains("evaluation 4"), "{contradiction}");
    assert!(!checked.is_sound());
}

#[tokio::test]
async fn a_compacted_store_holds_the_same_in_less() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let before = filled(&data).await;
    // sled keeps overwritten values until it reuses their space.
    let db = raw(&data);
    for round in 0..200_u8 {
        db.insert(b"waste", vec![round; 50_000]).unwrap();
        db.flush().unwrap();
    }
    db.remove(b"waste").unwrap();
    drop(db);
    let done = upkeep::compact(&data, &mut quiet).unwrap();
    assert!(done.after < done.before, "{done:?}");
    assert_eq!(state(&data).await, before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "neither .old nor .compacting is left");
}

#[tokio::test]
async fn a_store_that_was_set_aside_is_not_hidden_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (data, old) = (folder.path().join("data"), folder.path().join("data.old"));
    let before = filled(&data).await;
    // As if the power had failed between the two renames.
    std::fs::rename(&data, &old).unwrap();
    let error = SledStore::open(&data).unwrap_err();
    assert!(matches!(&error, StoreError::SetAside { aside, .. } if *aside == old.to_string_lossy()), "{error}");
    assert!(!data.exists());
    std::fs::rename(&old, &data).unwrap();
    assert_eq!(state(&data).await, before);
}

#[test]
fn what_is_no_store_or_in_use_is_refused_by_every_tool() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let refusals = || {
        let errors = [
            upkeep::check(&data, &mut quiet).map(drop).unwrap_err(),
            upkeep::backup(&data, &folder.path().join("b"), "unused", &mut quiet).map(drop).unwrap_err(),
            upkeep::compact(&data, &mut quiet).map(drop).unwrap_err(),
        ];
        errors.map(|e| (e.to_string(), e.hint().unwrap_or_default()))
    };
    for (error, hint) in refusals() {
        assert!(error.contains("not an evocache store") && hint.contains("--data"), "{error}; {hint}");
    }
    assert!(!data.exists(), "no tool makes a store where there is none");
    let _running = SledStore::open(&data).unwrap();
    for (error, hint) in refusals() {
        assert!(error.contains("in use") && hint.contains("stop the coordinator"), "{error}; {hint}");
    }
    assert!(!folder.path().join("b").exists());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// A store whose database is an old copy, so that 12 of 62 results are lost, and the digest of the remaining state.
async fn set_back(folder: &Path) -> (PathBuf, String) {
    let (data, old) = (folder.join("data"), folder.join("old"));
    let left = filled(&data).await;
    copy(&data, &old);
    let world = open(&data, 2000);
    let worker = world.register("w").await;
    world.create("lost", 60).await;
    world.work(&worker, 12).await;
    world.engine.stop().unwrap();
    std::fs::copy(data.join("mark"), old.join("mark")).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    (old, left)
}

fn serve(data: &Path, accept_loss: bool) -> ServeOptions {
    ServeOptions {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        reserve: 0,
        accept_loss,
        data: data.to_owned(),
        lease_ttl: Duration::from_secs(60),
        allow_remote_plaintext: false,
        http: None,
        security: Security::default(),
    }
}

/// Every tool and a coordinator refuse the store with these words and a hint.
async fn all_refuse(data: &Path, words: &[&str]) {
    let to = data.parent().unwrap().join("b");
    let refused = |e: UpkeepError| (e.to_string(), e.hint().unwrap_or_default());
    let started = start(serve(data, false)).await.map(drop).unwrap_err();
    let refusals = [
        (started.to_string(), started.hint().unwrap_or_default()),
        refused(upkeep::backup(data, &to, "unused", &mut quiet).map(drop).unwrap_err()),
        refused(upkeep::compact(data, &mut quiet).map(drop).unwrap_err()),
        refused(SledStore::open(data).unwrap_err().into()),
    ];
    for (error, hint) in refusals {
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(hint.contains("store restore") && hint.contains("serve --accept-loss"), "{hint}");
    }
    assert!(!to.exists());
    let checked = upkeep::check(data, &mut quiet).unwrap();
    let lost = checked.lost.clone().unwrap();
    assert!(!checked.is_sound() && words.iter().all(|word| lost.contains(word)), "{lost}");
    assert!(checked.hint().contains("--accept-loss"));
}

/// A coordinator accepts the loss when it is told to, and need not be told again.
async fn accepted(data: &Path) {
    for accept_loss in [true, false] {
        start(serve(data, accept_loss)).await.map_err(|e| e.to_string()).unwrap().shutdown().await.unwrap();
    }
    let checked = upkeep::check(data, &mut quiet).unwrap();
    assert!(checked.is_sound(), "{checked:?}");
}

#[tokio::test]
async fn a_store_that_has_lost_what_was_acknowledged_is_refused_until_the_loss_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (data, left) = set_back(folder.path()).await;
    for _ in 0..2 {
        all_refuse(&data, &["lost", "12 of 62 evaluations", "1 of 3 searches"]).await;
    }
    accepted(&data).await;
    assert_eq!(state(&data).await, left);
}

#[tokio::test]
async fn records_that_changed_without_their_mark_are_noticed() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    // A phase that the search never had, in a record that is valid and agrees with the others.
    let db = raw(folder.path());
    let other = db.get(b"p/done").unwrap().unwrap();
    db.insert(b"p/open", other).unwrap();
    drop(db);
    let checked = upkeep::check(folder.path(), &mut quiet).unwrap();
    assert!(checked.lost.unwrap().contains("not as they were written"));
    let error = SledStore::open(folder.path()).unwrap().load().unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn a_store_without_its_mark_is_refused_until_it_is_accepted_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let before = filled(&data).await;
    std::fs::remove_file(data.join("mark")).unwrap();
    all_refuse(&data, &["not known", "mark is missing"]).await;
    std::fs::write(data.join("mark"), [0; 8192]).unwrap();
    all_refuse(&data, &["not known", "none of its marks is whole"]).await;
    accepted(&data).await;
    assert_eq!(state(&data).await, before);
}

#[tokio::test]
async fn a_store_whose_database_is_gone_or_empty_is_one_that_lost_everything() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    filled(&data).await;
    for entry in std::fs::read_dir(&data).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with("snap.") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    std::fs::write(data.join("db"), "").unwrap();
    all_refuse(&data, &["50 of 50 evaluations"]).await;
    std::fs::remove_file(data.join("db")).unwrap();
    let error = upkeep::check(&data, &mut quiet).unwrap_err();
    assert!(error.to_string().contains("'db' is missing") && error.hint().unwrap().contains("restore"), "{error}");
}

#[tokio::test]
async fn a_torn_database_is_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    filled(&data).await;
    let file = data.join("db");
    let mut bytes = std::fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    for byte in &mut bytes[..half] {
        *byte = 0x5a;
    }
    std::fs::write(&file, bytes).unwrap();
    match upkeep::check(&data, &mut quiet) {
        Err(e) => assert!(e.hint().is_some_and(|h| h.contains("restore")), "{e}"),
        Ok(checked) => assert!(!checked.is_sound(), "{checked:?}"),
    }
}
