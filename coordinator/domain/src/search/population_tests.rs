//! Tests of the population against a full sort.

use proptest::prelude::*;

use super::*;
use crate::pareto::{Score, non_dominated_sort, tests::scores};

fn population(capacity: usize, scores: &[Score]) -> Population {
    let mut population = Population::new(capacity);
    for (id, &score) in (0..).zip(scores) {
        population.insert(Member { candidate: CandidateId(id), score });
    }
    population
}

proptest! {
    #[test]
    fn fronts_are_those_of_a_full_sort(scores in (2usize..5).prop_flat_map(|m| scores(m, 40))) {
        let fronts: Vec<Vec<usize>> = population(100, &scores)
            .fronts
            .iter()
            .map(|front| front.members.iter().map(|m| m.candidate.0 as usize).collect())
            .collect();
        prop_assert_eq!(fronts, non_dominated_sort(&scores));
    }

    #[test]
    fn the_most_crowded_member_of_the_last_front_is_removed(scores in scores(2, 40), capacity in 2usize..10) {
        let mut population = Population::new(capacity);
        for (id, &score) in (0..).zip(&scores) {
            let mut all: Vec<Member> = population.members().copied().collect();
            all.push(Member { candidate: CandidateId(id), score });
            all.sort_by_key(|m| m.candidate);
            population.insert(Member { candidate: CandidateId(id), score });
            if all.len() > capacity {
                let ranked: Vec<Score> = all.iter().map(|m| m.score).collect();
                let last = non_dominated_sort(&ranked).pop().unwrap_or_default();
                let points: Vec<Point> = last.iter().map(|&i| ranked[i].values).collect();
                let crowding = crowding_distance(&points);
                let least = crowding.iter().copied().fold(f64::INFINITY, f64::min);
                let leaves = (0..last.len()).rev().find(|&k| crowding[k] == least).map_or(0, |k| last[k]);
                all.remove(leaves);
            }
            let mut members: Vec<Member> = population.members().copied().collect();
            members.sort_by_key(|m| m.candidate);
            prop_assert_eq!(&members, &all);
            prop_assert_eq!(population.len, members.len());
        }
    }
}

#[test]
fn a_tournament_prefers_the_earlier_front() {
    let score = |x: f64| Score { values: [x, x].into(), violation: 0.0, losses: [x, x].into() };
    let population = population(10, &[score(3.0), score(2.0), score(1.0)]);
    let mut won = [0; 3];
    let mut stream = Stream::new(1, "test", 0);
    for _ in 0..900 {
        if let Some(CandidateId(id)) = population.tournament(&mut stream) {
            won[id as usize] += 1;
        }
    }
    assert!(won[0] < won[1] && won[1] < won[2], "{won:?}");
    assert_eq!(Population::new(3).tournament(&mut stream), None);
}
