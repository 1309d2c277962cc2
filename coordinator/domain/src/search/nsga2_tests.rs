//! Tests of generations and their children.

use std::sync::Arc;

use evocache_proto::domain::Layout;

use super::*;
use crate::search::random;

fn score(x: f64, y: f64) -> Score {
    let point = Point::from([x, y]);
    Score { values: point, violation: 0.0, losses: point }
}

#[test]
fn a_generation_waits_for_the_previous_one_and_keeps_the_best() {
    let mut generations = Generations::new(4);
    assert_eq!([1, 4, 5].map(|id| generations.breeds(CandidateId(id))), [None, None, Some(false)]);
    // A linear front and one candidate that it dominates; one fails. Results may arrive in any order.
    generations.tell(CandidateId(2), Some(score(0.5, 0.5)));
    generations.tell(CandidateId(4), None);
    generations.tell(CandidateId(3), Some(score(0.9, 0.9)));
    assert_eq!(generations.breeds(CandidateId(5)), Some(false));
    generations.tell(CandidateId(1), Some(score(0.1, 0.9)));
    assert_eq!(generations.breeds(CandidateId(5)), Some(true));
    assert_eq!(generations.parents.iter().map(|p| p.front).collect::<Vec<_>>(), [0, 0, 1]);
    // Three of the next four are better than all before. Four survive.
    for (id, x) in [(5, 0.2), (6, 0.05), (7, 0.4)] {
        generations.tell(CandidateId(id), Some(score(x, 0.45 - x)));
    }
    assert_eq!(generations.breeds(CandidateId(9)), Some(false));
    generations.tell(CandidateId(8), Some(score(0.95, 0.95)));
    let ids: Vec<u64> = generations.parents.iter().map(|p| p.member.candidate.0).collect();
    assert_eq!(ids[..3].iter().filter(|id| [5, 6, 7].contains(id)).count(), 3, "{ids:?}");
    assert_eq!(ids.len(), 4);
    // A result of a finished generation changes nothing.
    let before = generations.clone();
    generations.tell(CandidateId(1), Some(score(0.0, 0.0)));
    assert!(generations == before);
}

#[test]
fn results_of_later_generations_are_kept_until_their_turn() {
    // After a restart all results are told before the failures.
    let mut live = Generations::new(2);
    let mut replayed = live.clone();
    let results = [(1, Some(score(0.1, 0.2))), (2, None), (3, Some(score(0.2, 0.1))), (4, Some(score(0.3, 0.3)))];
    results.iter().for_each(|&(id, score)| live.tell(CandidateId(id), score));
    results.iter().filter(|r| r.1.is_some()).for_each(|&(id, score)| replayed.tell(CandidateId(id), score));
    replayed.tell(CandidateId(2), None);
    assert!(live == replayed && live.finished == 2);
}

#[test]
fn the_better_of_two_is_a_parent_more_often() {
    let mut generations = Generations::new(2);
    generations.tell(CandidateId(1), Some(score(0.5, 0.5)));
    generations.tell(CandidateId(2), Some(score(0.4, 0.4)));
    let mut stream = Stream::new(1, "parents", 0);
    let best = (0..400).filter(|_| generations.parent(&mut stream) == Some(CandidateId(2))).count();
    assert!((260..340).contains(&best), "{best} of 400; three in four are expected");
}

#[test]
fn a_child_is_pieces_of_both_parents() {
    let space = Space::new(Arc::new(Layout::pixart(3).unwrap()), &[10], false);
    let mut stream = Stream::new(3, "child", 0);
    let all = Genome::from_fn(&space, 10, |_, _| Decision::Compute);
    let none = Genome::from_fn(&space, 10, |_, _| Decision::Reuse);
    let mut mutated = 0;
    for _ in 0..400 {
        let (child, operators) = child(&space, all.clone(), Some(none.clone()), &mut stream);
        let cells: Vec<bool> =
            (0..10).flat_map(|t| (0..9).map(move |s| (t, s))).map(|(t, s)| child.computes(t, s)).collect();
        let changes = cells.windows(2).filter(|w| w[0] != w[1]).count();
        mutated += usize::from(operators.contains(&"flip"));
        assert!(changes <= CUTS || operators.contains(&"flip"), "{changes}");
    }
    assert!((5..45).contains(&mutated), "{mutated} of 400; one in twenty is expected");
    let parent = random::any_density(&space, &mut stream);
    let (copy, operators) = child(&space, parent.clone(), None, &mut Stream::new(3, "copy", 0));
    assert!(operators == ["flip"] && copy.steps() == parent.steps());
}
