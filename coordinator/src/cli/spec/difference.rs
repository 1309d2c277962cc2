//! Compares two specifications field by field.

use std::collections::BTreeSet;

use evocache_proto::domain::{Prompt, SpecDraft};
use serde_json::Value;

use crate::cli::kit::view;
use crate::client::Search;

/// How a specification differs from that of a search: one line a field.
pub fn differences(search: &Search, given: &SpecDraft) -> Vec<String> {
    let mut found = vec![];
    let (ours, theirs) = (view::spec(&search.spec), view::spec(given));
    compare("", &ours, &theirs, &mut found);
    let (ours, theirs) = (&search.spec.prompts, &given.prompts);
    if let Some(i) = (0..ours.len().min(theirs.len())).find(|&i| ours[i] != theirs[i]) {
        let shown = |p: &Prompt| format!("'{}' with seed {}", p.text, p.seed);
        found.push(format!("prompts[{i}]: it has {}, not {}", shown(&ours[i]), shown(&theirs[i])));
    }
    let (ours, theirs) = (&search.spec.imported, &given.imported);
    if let Some(i) = (0..ours.len().min(theirs.len())).find(|&i| ours[i].schedule != theirs[i].schedule) {
        found.push(format!("import[{i}]: it has another schedule than '{}'", theirs[i].name));
    }
    found
}

fn compare(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
    if let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) {
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            compare(&path, ours.get(name).unwrap_or(&Value::Null), theirs.get(name).unwrap_or(&Value::Null), found);
        }
    } else if ours != theirs {
        found.push(format!("{path}: it has {ours}, not {theirs}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kit::samples::search;

    #[test]
    fn differences_are_listed_by_field() {
        let search = search();
        let mut given = search.spec.clone();
        assert_eq!(differences(&search, &given), Vec::<String>::new());
        given.budget.evaluations = Some(7);
        given.seed = 9;
        given.sampling.steps = vec![9];
        given.objectives[1].bound = Some(0.5);
        given.prompts[1].seed = 3;
        let found = differences(&search, &given);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].starts_with("budget.evaluations: it has ") && found[0].ends_with(", not 7"), "{found:?}");
        assert!(found.contains(&"sampling.steps: it has [4], not [9]".to_owned()), "{found:?}");
        assert!(found[4].starts_with("prompts[1]: it has 'a cat' with seed 0"), "{found:?}");
    }
}
