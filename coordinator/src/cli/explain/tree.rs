//! The ancestry of a candidate, laid out as the lines of a tree. Pure.

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::CandidateId;

use crate::client::Evaluation;

/// A line of the tree.
#[derive(Debug)]
pub(super) struct Ancestor<'a> {
    /// What is drawn before it.
    pub(super) branch: String,
    /// 0 for the candidate itself, 1 for its parents.
    pub(super) generation: usize,
    /// Which.
    pub(super) candidate: CandidateId,
    /// What is told of it.
    pub(super) told: Told<'a>,
}

/// What is told of an ancestor.
#[derive(Debug)]
pub(super) enum Told<'a> {
    /// Everything; its parents follow.
    Whole(&'a Evaluation),
    /// Everything, but its parents are too far back.
    Cut(&'a Evaluation),
    /// It stands further up.
    Before,
    /// There is no evaluation of it.
    Unknown,
}

/// The candidate, then its parents, each followed by its own, at most so many generations back.
pub(super) fn ancestors(evaluations: &[Evaluation], candidate: CandidateId, depth: usize) -> Vec<Ancestor<'_>> {
    let known: BTreeMap<CandidateId, &Evaluation> = evaluations.iter().map(|e| (e.candidate, e)).collect();
    let mut told = BTreeSet::new();
    let mut lines = vec![];
    // What is still to be told, next last: the line's branch, and that of its children.
    let mut open = vec![(candidate, 0, String::new(), String::new())];
    while let Some((candidate, generation, branch, below)) = open.pop() {
        let Some(&evaluation) = known.get(&candidate) else {
            lines.push(Ancestor { branch, generation, candidate, told: Told::Unknown });
            continue;
        };
        if told.contains(&candidate) {
            lines.push(Ancestor { branch, generation, candidate, told: Told::Before });
            continue;
        }
        let parents = &evaluation.parents;
        if generation >= depth && !parents.is_empty() {
            // Not told for good: it may come again nearer to the candidate, and then with its parents.
            lines.push(Ancestor { branch, generation, candidate, told: Told::Cut(evaluation) });
            continue;
        }
        told.insert(candidate);
        lines.push(Ancestor { branch, generation, candidate, told: Told::Whole(evaluation) });
        for (i, &parent) in parents.iter().enumerate().rev() {
            let (fork, pipe) = if i + 1 == parents.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            open.push((parent, generation + 1, format!("{below}{fork}"), format!("{below}{pipe}")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples::sample;

    fn bred(candidate: u64, parents: &[u64]) -> Evaluation {
        Evaluation { parents: parents.iter().map(|&p| CandidateId(p)).collect(), ..sample(candidate, 2, &[0.9]) }
    }

    fn drawn(evaluations: &[Evaluation], candidate: u64, depth: usize) -> Vec<String> {
        let line = |a: &Ancestor<'_>| {
            let told = match a.told {
                Told::Whole(_) => "",
                Told::Cut(_) => " cut",
                Told::Before => " before",
                Told::Unknown => " unknown",
            };
            format!("{}{}{told}", a.branch, a.candidate)
        };
        ancestors(evaluations, CandidateId(candidate), depth).iter().map(line).collect()
    }

    #[test]
    fn who_was_told_before_is_told_once() {
        let family = [bred(0, &[]), bred(1, &[]), bred(2, &[0, 1]), bred(3, &[2]), bred(4, &[3, 2]), bred(5, &[4, 9])];
        assert_eq!(
            drawn(&family, 5, 6),
            ["5", "├─ 4", "│  ├─ 3", "│  │  └─ 2", "│  │     ├─ 0", "│  │     └─ 1", "│  └─ 2 before", "└─ 9 unknown"]
        );
    }

    #[test]
    fn what_is_too_far_back_is_cut_but_told_where_it_is_near() {
        let family = [bred(0, &[]), bred(2, &[0]), bred(3, &[2]), bred(4, &[3, 2])];
        assert_eq!(drawn(&family, 4, 2), ["4", "├─ 3", "│  └─ 2 cut", "└─ 2", "   └─ 0"]);
        assert_eq!(drawn(&family, 4, 0), ["4 cut"]);
        assert_eq!(drawn(&family, 0, 0), ["0"]);
    }
}
