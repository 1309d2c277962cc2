//! The verb `explain`: where a candidate comes from.

use std::collections::BTreeSet;

use crate::support::{Coordinator, spec_file};
use crate::worker::work;

#[test]
fn a_candidate_is_traced_to_its_roots() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec_file(folder.path());
    let c = Coordinator::start(&folder.path().join("data"));
    c.evocache(&["launch", &spec, "--id", "s"]).ok();
    work(&c.url, "s");
    let explain = |candidate: &str, more: &[&str]| c.evocache(&[&["explain", "s", candidate], more].concat());

    // Among the last candidates there is one with parents.
    let bred = (24..60).rev().find(|n| explain(&n.to_string(), &[]).ok().stdout.contains("─ ")).unwrap().to_string();
    let whole = explain(&bred, &["--depth", "100", "--json"]).json();
    let ancestors = whole["ancestors"].as_array().unwrap();
    assert_eq!((ancestors[0]["candidate"].to_string(), &ancestors[0]["generation"]), (bred.clone(), &0.into()));
    assert!(ancestors[0]["speedup"].is_number() && ancestors[0]["quality_ratio"].is_number(), "{whole:#}");
    let ids: BTreeSet<u64> = ancestors.iter().map(|a| a["candidate"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), ancestors.len(), "each once");
    for ancestor in ancestors {
        let parents = ancestor["parents"].as_array().unwrap();
        assert!(parents.iter().all(|p| ids.contains(&p.as_u64().unwrap())), "{ancestor:#}");
    }

    let root = explain("0", &[]);
    assert_eq!(root.ok().stdout.lines().count(), 1);
    for word in ["0  uncached", "10 steps", "0.0 % cached", "clip_score 100.0 % of uncached"] {
        assert!(root.stdout.contains(word), "'{word}' is not in {}", root.stdout);
    }
    let cut = explain(&bred, &["--depth", "0"]);
    assert!(cut.ok().stdout.contains("not shown; --depth"), "{}", cut.stdout);
    explain("100000", &[]).fails(3, &["100000", "hint:", "evocache front s"]);
}
