//! Tests of the archive against brute force.

use proptest::prelude::*;

use super::*;
use crate::pareto::tests::scores;

fn archive(candidates: &[(u64, Score)]) -> Archive {
    let mut archive = Archive::new();
    for &(id, score) in candidates {
        archive.insert(CandidateId(id), score);
    }
    archive
}

#[test]
fn of_equal_vectors_the_oldest_candidate_is_kept() {
    let score = Score { values: [1.0, 1.0].into(), violation: 0.0, losses: [0.5, 0.5].into() };
    let mut archive = archive(&[(5, score)]);
    assert_eq!(archive.insert(CandidateId(7), score), Inserted::Dominated);
    assert_eq!(archive.insert(CandidateId(3), score), Inserted::Joined(1));
    assert_eq!(archive.members(), [Box::new(Member { candidate: CandidateId(3), score })]);
    assert_eq!(archive.hypervolume(), 0.25);
}

#[test]
fn an_infeasible_front_has_no_hypervolume_and_is_replaced_by_the_first_feasible_candidate() {
    let score = |violation, x: f64| Score { values: [x, -x].into(), violation, losses: [0.5, 0.5].into() };
    let mut archive = archive(&[(1, score(0.5, 1.0)), (2, score(0.5, 2.0)), (3, score(0.7, 0.0))]);
    assert_eq!((archive.len(), archive.hypervolume()), (2, 0.0));
    assert_eq!(archive.insert(CandidateId(4), score(0.0, 9.0)), Inserted::Joined(2));
    assert_eq!((archive.len(), archive.is_empty()), (1, false));
}

proptest! {
    #[test]
    fn the_archive_is_the_non_dominated_set_in_any_order_of_insertion(
        scores in (2usize..5).prop_flat_map(|m| scores(m, 40)),
        seed in any::<u64>(),
    ) {
        let mut candidates: Vec<(u64, Score)> = (0..).zip(scores).collect();
        let mut expected: Vec<Box<Member>> = candidates
            .iter()
            .filter(|(id, s)| !candidates.iter().any(|(other, t)| {
                t.dominates(s) || (other < id && t.values == s.values && t.violation == s.violation)
            }))
            .map(|&(id, score)| Box::new(Member { candidate: CandidateId(id), score }))
            .collect();
        expected.sort_by(|a, b| order(&a.score, &b.score));
        prop_assert_eq!(&archive(&candidates).members, &expected);
        // Building it at once gives the same set, and `covers` agrees with `insert`.
        let all = candidates.iter().map(|&(id, score)| Member { candidate: CandidateId(id), score }).collect();
        prop_assert_eq!(&Archive::of(all).members, &expected);
        let (half, rest) = candidates.split_at(candidates.len() / 2);
        let front = archive(half);
        for &(_, score) in rest {
            let joins = front.clone().insert(CandidateId(u64::MAX), score) != Inserted::Dominated;
            prop_assert_eq!(front.covers(&score), !joins);
        }
        let mut stream = crate::rng::Stream::new(seed, "shuffle", 0);
        for i in (1..candidates.len()).rev() {
            candidates.swap(i, stream.below(i + 1));
        }
        prop_assert_eq!(&archive(&candidates).members, &expected);
    }
}

#[test]
fn losses_below_zero_do_not_raise_the_hypervolume_above_one() {
    let mut archive = Archive::new();
    for (id, losses) in [(0, [0.5, -1.5]), (1, [0.25, -0.5]), (2, [0.75, -3.0])] {
        let score = Score { values: losses.into(), violation: 0.0, losses: losses.into() };
        archive.insert(CandidateId(id), score);
    }
    assert_eq!((archive.len(), archive.hypervolume()), (3, 0.75));
}
