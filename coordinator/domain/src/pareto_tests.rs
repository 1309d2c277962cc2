//! Tests of dominance, fronts and crowding, against their definitions.

use proptest::prelude::*;

use super::*;

/// Scores on a coarse grid, so that ties and equal points are common; some infeasible.
pub(crate) fn scores(objectives: usize, most: usize) -> impl Strategy<Value = Vec<Score>> {
    let values = proptest::collection::vec(0u8..6, objectives);
    let score = (values, prop_oneof![4 => Just(0u8), 1 => 1u8..4]).prop_map(|(values, violation)| {
        let values: Point = values.into_iter().map(f64::from).collect();
        Score { values, violation: f64::from(violation), losses: values.iter().map(|v| v / 6.0).collect() }
    });
    proptest::collection::vec(score, 1..most)
}

#[test]
fn dominance_is_nowhere_worse_and_somewhere_better() {
    assert!(dominates(&[1.0, 2.0], &[1.0, 3.0]));
    assert!(!dominates(&[1.0, 2.0], &[1.0, 2.0]));
    assert!(!dominates(&[1.0, 2.0], &[0.5, 3.0]));
}

#[test]
fn feasible_scores_dominate_infeasible_ones_and_smaller_violations_larger_ones() {
    let score = |violation, x| Score { values: [x, x].into(), violation, losses: [x, x].into() };
    assert!(score(0.0, 9.0).dominates(&score(0.1, 1.0)));
    assert!(score(0.1, 9.0).dominates(&score(0.2, 1.0)));
    assert!(!score(0.2, 1.0).dominates(&score(0.2, 9.0)));
}

#[test]
fn negative_zero_is_zero() {
    let (a, b) = (Point::from([-0.0, 1.0]), Point::from([0.0, 1.0]));
    assert_eq!(a.lexicographic(&b), Ordering::Equal);
    assert_eq!(format!("{a:?}"), "[0.0, 1.0]");
}

#[test]
fn crowding_is_the_gap_between_neighbors() {
    let points: Vec<Point> = [[0.0, 4.0], [1.0, 2.0], [2.0, 1.0], [4.0, 0.0]].map(Point::from).to_vec();
    let distance = crowding_distance(&points);
    assert_eq!(distance, [f64::INFINITY, 2.0 / 4.0 + 3.0 / 4.0, 3.0 / 4.0 + 2.0 / 4.0, f64::INFINITY]);
    assert_eq!(crowding_distance(&[]), [0.0; 0]);
    assert_eq!(crowding_distance(&points[..1]), [f64::INFINITY]);
}

proptest! {
    #[test]
    fn constrained_dominance_is_a_strict_partial_order(scores in scores(3, 12)) {
        for a in &scores {
            prop_assert!(!a.dominates(a));
            for b in &scores {
                prop_assert!(!(a.dominates(b) && b.dominates(a)));
                for c in &scores {
                    prop_assert!(!(a.dominates(b) && b.dominates(c)) || a.dominates(c));
                }
            }
        }
    }

    /// The definition: a front is the non-dominated set once the earlier fronts are removed.
    #[test]
    fn each_front_is_the_non_dominated_set_of_the_rest(scores in (2usize..5).prop_flat_map(|m| scores(m, 30))) {
        let fronts = non_dominated_sort(&scores);
        let mut left: Vec<usize> = (0..scores.len()).collect();
        for front in fronts {
            let expected: Vec<usize> =
                left.iter().copied().filter(|&i| !left.iter().any(|&j| scores[j].dominates(&scores[i]))).collect();
            prop_assert_eq!(&front, &expected);
            left.retain(|i| !front.contains(i));
        }
        prop_assert!(left.is_empty());
    }

    /// With distinct values per objective there are no ties: the neighbors are the next smaller and larger values.
    #[test]
    fn crowding_agrees_with_its_definition(
        xs in proptest::collection::btree_set(0u32..1000, 2..20),
        seed in any::<u64>(),
    ) {
        let n = xs.len();
        let mut ys: Vec<u32> = xs.iter().map(|x| x * 7 % 1009).collect();
        ys.rotate_left(seed as usize % n);
        let points: Vec<Point> =
            xs.iter().zip(&ys).map(|(&x, &y)| Point::from([f64::from(x), f64::from(y)])).collect();
        let expected = |i: usize| (0..2).map(|k| {
            let v = points[i][k];
            let all = || points.iter().map(|p| p[k]);
            let below = all().filter(|&w| w < v).fold(f64::NEG_INFINITY, f64::max);
            let above = all().filter(|&w| w > v).fold(f64::INFINITY, f64::min);
            let range = all().fold(f64::NEG_INFINITY, f64::max) - all().fold(f64::INFINITY, f64::min);
            (above - below) / range
        }).sum::<f64>();
        for (i, distance) in crowding_distance(&points).into_iter().enumerate() {
            let expected = expected(i);
            prop_assert!(distance == expected || (distance - expected).abs() < 1e-12, "{} {}", distance, expected);
        }
    }
}

#[test]
fn equal_points_crowd_each_other() {
    let points = [[0.0, 2.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [2.0, 0.0]].map(Point::from);
    let distance = crowding_distance(&points);
    assert_eq!(distance[2], 0.0);
    let smallest = distance.iter().copied().min_by(f64::total_cmp).unwrap();
    assert_eq!(smallest, 0.0);
}
