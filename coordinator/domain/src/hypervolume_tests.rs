//! Tests of the hypervolume against counting the cells of a grid, and against inclusion and exclusion.

use proptest::prelude::*;

use super::*;

const CELLS: u8 = 6;

fn grid_points(objectives: usize, most: usize) -> impl Strategy<Value = Vec<Point>> {
    let point = proptest::collection::vec(0u8..=CELLS + 1, objectives)
        .prop_map(|values| values.into_iter().map(f64::from).collect::<Point>());
    proptest::collection::vec(point, 0..most)
}

/// Points have integer coordinates, so each cell of the grid is dominated entirely or not at all.
fn count_cells(points: &[Point], objectives: usize) -> f64 {
    let cells = usize::from(CELLS).pow(objectives as u32);
    let corner = |cell: usize, k: usize| (cell / usize::from(CELLS).pow(k as u32) % usize::from(CELLS)) as f64;
    (0..cells).filter(|&cell| points.iter().any(|p| (0..objectives).all(|k| p[k] <= corner(cell, k)))).count() as f64
}

/// The volume of a union by summing over all subsets.
fn inclusion_exclusion(points: &[Point], reference: &[f64]) -> f64 {
    (1u32..1 << points.len())
        .map(|subset| {
            let members = || points.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, p)| p);
            let volume: f64 = (0..reference.len())
                .map(|k| (reference[k] - members().map(|p| p[k]).fold(f64::NEG_INFINITY, f64::max)).max(0.0))
                .product();
            if subset.count_ones() % 2 == 1 { volume } else { -volume }
        })
        .sum()
}

#[test]
fn known_volumes() {
    assert_eq!(hypervolume(&[], &[1.0, 1.0]), 0.0);
    assert_eq!(hypervolume(&[Point::from([0.0, 0.0])], &[1.0, 1.0]), 1.0);
    assert_eq!(hypervolume(&[Point::from([0.0, 1.0])], &[1.0, 1.0]), 0.0);
    assert_eq!(hypervolume(&[Point::from([0.5, 0.0]), Point::from([0.0, 0.5])], &[1.0, 1.0]), 0.75);
    assert_eq!(hypervolume(&[Point::from([-0.5, 0.5])], &[1.0, 1.0]), 0.75);
    assert_eq!(hypervolume(&[Point::from([0.25])], &[1.0]), 0.75);
    assert_eq!(hypervolume(&[Point::from([0.5; 4])], &[1.0; 4]), 0.0625);
}

proptest! {
    #[test]
    fn volume_is_the_number_of_dominated_cells(
        (objectives, points) in (2usize..5).prop_flat_map(|m| (Just(m), grid_points(m, 12)))
    ) {
        let reference = vec![f64::from(CELLS); objectives];
        prop_assert_eq!(hypervolume(&points, &reference), count_cells(&points, objectives));
    }

    #[test]
    fn volume_agrees_with_inclusion_and_exclusion_in_any_order(
        (objectives, values) in (2usize..5).prop_flat_map(|m| (
            Just(m),
            proptest::collection::vec(proptest::collection::vec(-0.2f64..1.1, m), 0..8),
        ))
    ) {
        let mut points: Vec<Point> = values.into_iter().map(|v| v.into_iter().collect()).collect();
        let reference = vec![1.0; objectives];
        let volume = hypervolume(&points, &reference);
        prop_assert!((volume - inclusion_exclusion(&points, &reference)).abs() < 1e-9);
        points.reverse();
        prop_assert_eq!(hypervolume(&points, &reference), volume);
    }

    #[test]
    fn a_gain_is_the_difference_of_two_volumes(points in grid_points(2, 25)) {
        let reference = f64::from(CELLS);
        let mut stairs = Staircase::new((reference, reference));
        for (i, p) in points.iter().enumerate() {
            let before = count_cells(&points[..i], 2);
            let after = count_cells(&points[..=i], 2);
            prop_assert_eq!(stairs.gain(p[0], p[1]), after - before);
            prop_assert_eq!(stairs.insert(p[0], p[1]), after - before);
            prop_assert_eq!(stairs.area(), after);
        }
    }
}
