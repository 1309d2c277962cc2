//! The verb `serve`: how it starts, stops, and refuses.

use crate::support::{Coordinator, evocache, spec_file};

#[test]
fn a_stopped_coordinator_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (data, spec) = (folder.path().join("data"), spec_file(folder.path()));
    let coordinator = Coordinator::start(&data);
    coordinator.evocache(&["launch", &spec, "--id", "lasting"]).ok();
    assert_eq!(coordinator.stop(), 0, "being asked to stop is no failure");
    let coordinator = Coordinator::start(&data);
    assert_eq!(coordinator.evocache(&["show", "lasting", "--json"]).json()["state"], "pending");
}

#[test]
fn a_port_in_use_is_told_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&folder.path().join("a"));
    let listen = coordinator.url.trim_start_matches("http://");
    let data = folder.path().join("b");
    evocache(&["serve", "--listen", listen, "--data", data.to_str().unwrap()])
        .fails(1, &[listen, "in use", "hint:", "--listen"]);
}

#[test]
fn a_store_is_opened_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let _first = Coordinator::start(folder.path());
    evocache(&["serve", "--listen", "127.0.0.1:0", "--data", data]).fails(1, &[data, "hint:", "--data"]);
}

#[test]
fn a_folder_of_something_else_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "something").unwrap();
    evocache(&["serve", "--listen", "127.0.0.1:0", "--data", path.to_str().unwrap()]).fails(1, &["file"]);
}

#[test]
fn other_machines_are_let_in_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    evocache(&["serve", "--listen", "0.0.0.0:0", "--data", data])
        .fails(1, &["0.0.0.0:0", "hint:", "--allow-remote-plaintext"]);
}
