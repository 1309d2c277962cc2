//! The verb `store`: what it says, and how it exits.

use crate::support::{Coordinator, evocache, spec_file};

#[test]
fn a_store_is_checked_backed_up_restored_and_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, copy, file) = (path("data"), path("copy"), path("b.backup"));
    let coordinator = Coordinator::start(&folder.path().join("data"));
    coordinator.evocache(&["launch", &spec_file(folder.path()), "--id", "kept"]).ok();
    evocache(&["store", "check", "--data", &data]).fails(1, &["in use", "hint:", "stop the coordinator"]);
    assert_eq!(coordinator.stop(), 0);

    let checked = evocache(&["store", "check", "--data", &data, "--json"]).json();
    assert_eq!((checked["sound"].as_bool(), checked["records"]["searches"].as_u64()), (Some(true), Some(1)));
    let text = evocache(&["store", "check", "--data", &data]).ok().stdout.clone();
    assert!(text.contains("kept") && text.ends_with("sound\n"), "{text}");

    let written = evocache(&["store", "backup", &file, "--data", &data, "--json"]).json();
    let restored = evocache(&["store", "restore", &file, "--data", &copy, "--json"]).json();
    assert_eq!(written["sha256"], restored["sha256"]);
    evocache(&["store", "backup", &file, "--data", &data]).fails(2, &["exists already", "hint:"]);
    evocache(&["store", "restore", &file, "--data", &data]).fails(2, &["not empty", "hint:"]);
    evocache(&["store", "backup", folder.path().to_str().unwrap(), "--data", &data]).ok();
    let named = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert_eq!(named.filter(|n| n.starts_with("evocache-") && n.ends_with("Z.backup")).count(), 1);

    let compacted = evocache(&["store", "compact", "--data", &copy]);
    assert!(compacted.ok().stderr.contains(".old"), "{}", compacted.stderr);
    let coordinator = Coordinator::start(&folder.path().join("copy"));
    assert_eq!(coordinator.evocache(&["show", "kept", "--json"]).json()["state"], "pending");
}

#[test]
fn a_coordinator_that_runs_is_backed_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec_file(folder.path()), "--id", "kept"]).ok();
    let data = path("data");
    evocache(&["store", "backup", &path("b"), "--data", &data]).fails(1, &["in use", "hint:", "`evocache backup`"]);
    let written = c.evocache(&["backup", &path("b"), "--json"]).json();
    c.evocache(&["backup", &path("b")]).fails(2, &["exists already", "hint:"]);
    c.evocache(&["backup", &path("none/")]).fails(2, &["there is no folder", "hint:"]);
    let restored = evocache(&["store", "restore", &path("b"), "--data", &path("copy"), "--json"]).json();
    assert_eq!((&written["sha256"], &written["records"]), (&restored["sha256"], &restored["records"]));
    evocache(&["store", "check", "--data", &path("copy")]).ok();
    let copy = Coordinator::start(&folder.path().join("copy"));
    assert_eq!(copy.evocache(&["show", "kept", "--json"]).json()["state"], "pending");
    assert!(c.evocache(&["backup", folder.path().to_str().unwrap()]).ok().stdout.contains("Z.backup"));
    let left = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.ends_with(".partial")));
}

#[test]
fn a_damaged_store_is_exit_code_1_and_its_record_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let coordinator = Coordinator::start(&data);
    coordinator.evocache(&["launch", &spec_file(folder.path()), "--id", "hurt"]).ok();
    assert_eq!(coordinator.stop(), 0);
    let db = sled::open(&data).unwrap();
    db.insert(b"s/hurt", b"\xff\xff").unwrap();
    drop(db);
    let data = data.to_str().unwrap();
    let outcome = evocache(&["store", "check", "--data", data]);
    outcome.fails(1, &["damaged", "hint:", "store restore"]);
    assert!(outcome.stdout.contains("damaged: s/hurt:"), "{}", outcome.stdout);
    evocache(&["store", "check", "--data", "nowhere"]).fails(1, &["nowhere", "no database", "--data"]);
    evocache(&["store", "restore", data, "--data", "elsewhere"]).fails(1, &["cannot"]);
}

#[test]
fn a_coordinator_refuses_a_store_that_lost_what_it_acknowledged_and_accepts_it_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let (data, old) = (folder.path().join("data"), folder.path().join("old"));
    let coordinator = Coordinator::start(&data);
    assert_eq!(coordinator.stop(), 0);
    copy(&data, &old);
    let coordinator = Coordinator::start(&data);
    coordinator.evocache(&["launch", &spec_file(folder.path()), "--id", "gone"]).ok();
    assert_eq!(coordinator.stop(), 0);
    std::fs::copy(data.join("mark"), old.join("mark")).unwrap();

    let shown = old.to_str().unwrap();
    let words = ["lost acknowledged records", "1 of 1 searches", "hint:", "store restore", "serve --accept-loss"];
    evocache(&["serve", "--listen", "127.0.0.1:0", "--data", shown]).fails(1, &words);
    evocache(&["store", "backup", folder.path().to_str().unwrap(), "--data", shown]).fails(1, &words);
    let checked = evocache(&["store", "check", "--data", shown]);
    checked.fails(1, &["damaged", "hint:", "serve --accept-loss"]);
    assert!(checked.stdout.contains("lost: ") && checked.stdout.contains("1 of 1 searches"), "{}", checked.stdout);
    let coordinator = Coordinator::start_with(&old, &["--accept-loss"]);
    assert_eq!(coordinator.stop(), 0);
    evocache(&["store", "check", "--data", shown]).ok();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}
