//! Beginning with the fronts of other searches.

use crate::support::{Coordinator, SPEC, spec_file, write};
use crate::worker::work;

#[test]
fn a_search_begins_with_the_fronts_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "old"]).ok();
    work(&c.url, "old");
    let front = c.evocache(&["front", "old", "--json"]).json()["evaluations"].as_array().unwrap().len();

    // By flag, by file, and by both: the same search is there once.
    let by_flag = c.evocache(&["launch", &spec, "--id", "flag", "--start-from", "old", "--json"]).json();
    let imported = by_flag["spec"]["imported"].as_u64().unwrap() as usize;
    assert!((4..=front).contains(&imported), "{imported} of {front}");
    let text = SPEC.replace("seed = 1", "seed = 1\nstart_from = [\"old\"]").replace("[10, 6]", "[14, 8]");
    let other = write(folder.path(), "other-steps.toml", &text);
    let by_file = c.evocache(&["launch", &other, "--id", "file", "--start-from", "old", "--json"]).json();
    assert_eq!(by_file["spec"]["imported"], imported);

    for check in [&[][..], &["--check"]] {
        let command = [&["launch", &spec, "--start-from", "gone"][..], check].concat();
        c.evocache(&command).fails(3, &["gone", "hint:", "evocache list"]);
    }
}
