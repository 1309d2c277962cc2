//! The ancestry of a candidate, laid out as the lines of a tree. Pure.

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::CandidateId;

use crate::client::Evaluation;

/// A line of the tree.
#[derive(Debug)]
pub(super) struct Ancestor<'a> {
    /// The branches of the tree, drawn before the text.
    pub(super) branch: String,
    /// 0 for the candidate itself, 1 for its parents, and so on.
    pub(super) generation: usize,
    /// The candidate of this line.
    pub(super) candidate: CandidateId,
    /// What is known of it.
    pub(super) shown: Shown<'a>,
}

/// What a line shows of a candidate.
#[derive(Debug)]
pub(super) enum Shown<'a> {
    /// Its evaluation; its parents follow.
    Whole(&'a Evaluation),
    /// Its evaluation, without its parents: they are beyond the depth.
    Cut(&'a Evaluation),
    /// A reference to an earlier line.
    Before,
    /// Nothing: it has no evaluation.
    Unknown,
}

/// The candidate, then its parents, each followed by its own, at most `depth` generations back.
pub(super) fn ancestors(evaluations: &[Evaluation], candidate: CandidateId, depth: usize) -> Vec<Ancestor<'_>> {
    let known: BTreeMap<CandidateId, &Evaluation> = evaluations.iter().map(|e| (e.candidate, e)).collect();
    let mut shown = BTreeSet::new();
    let mut lines = vec![];
    // Lines still to be made, the next one last: the line's branch, and that of its children.
    let mut open = vec![(candidate, 0, String::new(), String::new())];
    while let Some((candidate, generation, branch, below)) = open.pop() {
        let Some(&evaluation) = known.get(&candidate) else {
            lines.push(Ancestor { branch, generation, candidate, shown: Shown::Unknown });
            continue;
        };
        if shown.contains(&candidate) {
            lines.push(Ancestor { branch, generation, candidate, shown: Shown::Before });
            continue;
        }
        let parents = &evaluation.parents;
        if generation >= depth && !parents.is_empty() {
            // Not final: it may appear again closer to the candidate, and then with its parents.
            lines.push(Ancestor { branch, generation, candidate, shown: Shown::Cut(evaluation) });
            continue;
        }
        shown.insert(candidate);
        lines.push(Ancestor { branch, generation, candidate, shown: Shown::Whole(evaluation) });
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
    use crate::cli::kit::samples::sample;

    fn bred(candidate: u64, parents: &[u64]) -> Evaluation {
        Evaluation { parents: parents.iter().map(|&p| CandidateId(p)).collect(), ..sample(candidate, 2, &[0.9]) }
    }

    fn drawn(evaluations: &[Evaluation], candidate: u64, depth: usize) -> Vec<String> {
        let line = |a: &Ancestor<'_>| {
            let shown = match a.shown {
                Shown::Whole(_) => "",
                Shown::Cut(_) => " cut",
                Shown::Before => " before",
                Shown::Unknown => " unknown",
            };
            format!("{}{}{shown}", a.branch, a.candidate)
        };
        ancestors(evaluations, CandidateId(candidate), depth).iter().map(line).collect()
    }

    #[test]
    fn each_candidate_is_shown_in_full_once() {
        let family = [bred(0, &[]), bred(1, &[]), bred(2, &[0, 1]), bred(3, &[2]), bred(4, &[3, 2]), bred(5, &[4, 9])];
        assert_eq!(
            drawn(&family, 5, 6),
            ["5", "├─ 4", "│  ├─ 3", "│  │  └─ 2", "│  │     ├─ 0", "│  │     └─ 1", "│  └─ 2 before", "└─ 9 unknown"]
        );
    }

    #[test]
    fn ancestors_beyond_the_depth_are_cut_unless_they_also_appear_closer() {
        let family = [bred(0, &[]), bred(2, &[0]), bred(3, &[2]), bred(4, &[3, 2])];
        assert_eq!(drawn(&family, 4, 2), ["4", "├─ 3", "│  └─ 2 cut", "└─ 2", "   └─ 0"]);
        assert_eq!(drawn(&family, 4, 0), ["4 cut"]);
        assert_eq!(drawn(&family, 0, 0), ["0"]);
    }
}
