//! Tests of seeds from a calibration profile.

use std::sync::Arc;

use evocache_proto::domain::Layout;
use proptest::prelude::*;

use super::*;

const STEPS: u32 = 12;
const LAGS: u32 = 4;

fn space() -> Space {
    Space::new(Arc::new(Layout::pixart(2).unwrap()), &[STEPS, 6], false)
}

/// Changes by (kind, step, lag).
fn profile(change: impl Fn(usize, u32, u32) -> f32) -> Profile {
    let mut changes = Vec::new();
    for lag in 1..=LAGS {
        for step in 0..STEPS {
            changes.extend((0..6).map(|slot| if step < lag { 0.0 } else { change(slot % 3, step, lag) }));
        }
    }
    Profile::new(STEPS, LAGS, changes).unwrap()
}

fn computed(genome: &Genome, slot: usize) -> String {
    (0..genome.steps()).map(|t| if genome.computes(t, slot) { '1' } else { '0' }).collect()
}

#[test]
fn slowly_changing_components_are_reused_longest() {
    let space = space();
    let changes = Changes::new(&space, &profile(|kind, _, lag| [0.01, 0.1, 0.03][kind] * lag as f32), STEPS).unwrap();
    let genome = smooth(&space, &changes, 0.45);
    let count = |slot| computed(&genome, slot).matches('1').count();
    assert!(count(0) < count(2) && count(2) < count(1), "{} {} {}", count(0), count(2), count(1));
    // The first and the last step are computed, and both blocks are equal.
    for slot in 0..6 {
        assert!(genome.computes(0, slot) && genome.computes(STEPS as usize - 1, slot));
        assert_eq!(computed(&genome, slot), computed(&genome, slot % 3));
    }
}

#[test]
fn a_path_computes_where_outputs_change() {
    let space = space();
    // Outputs change at steps 5 and 9 only.
    let jumps = |step: u32, lag: u32| [5, 9].iter().filter(|&&j| j <= step && j > step - lag.min(step)).count();
    let steep = profile(|_, step, lag| jumps(step, lag) as f32);
    let changes = Changes::new(&space, &steep, STEPS).unwrap();
    assert_eq!(computed(&path(&space, &changes, 0.25, false), 0), "100001000100");
    assert_eq!(computed(&path(&space, &changes, 0.25, true), 4), "100001000100");
}

#[test]
fn another_step_count_reads_the_profile_by_relative_time() {
    let space = space();
    let linear = profile(|_, _, lag| 0.1 * lag as f32);
    let half = Changes::new(&space, &linear, 6).unwrap();
    assert!((half.change(0, 3, 1) - 0.2).abs() < 1e-6 && (half.change(0, 5, 3) - 0.6).abs() < 1e-6);
    let other = Profile::new(STEPS, 1, vec![0.5; STEPS as usize * 5]).unwrap();
    assert!(Changes::new(&space, &other, STEPS).is_none());
}

proptest! {
    /// Dynamic programming against all masks.
    #[test]
    fn no_mask_is_better_than_the_path(
        values in proptest::collection::vec(0.0f64..1.0, 64),
        count in 1usize..=8,
    ) {
        let steps = 8;
        let change = |step: usize, age: usize| values[step * 8 + age - 1];
        let cost = |mask: u32| {
            let mut last = 0;
            let mut sum = 0.0;
            for step in 0..steps {
                if mask >> step & 1 == 1 { last = step } else { sum += change(step, step - last) }
            }
            sum
        };
        let found = shortest(steps, count, change);
        let found = (0..steps).fold(0, |mask, t| mask | u32::from(found[t]) << t);
        prop_assert!(found & 1 == 1 && found.count_ones() as usize == count);
        let best = (0..1u32 << steps).filter(|m| m & 1 == 1 && m.count_ones() as usize == count).map(cost);
        let best = best.fold(f64::INFINITY, f64::min);
        prop_assert!((cost(found) - best).abs() < 1e-9, "{} {}", cost(found), best);
    }

    /// Seeds are valid for any profile.
    #[test]
    fn any_profile_makes_seeds(values in proptest::collection::vec(0.0f32..4.0, 48), share in 0.05f64..1.0) {
        let space = space();
        let changes = Changes::new(&space, &profile(|k, s, l| values[k * 16 + (s % 4 * 4 + l - 1) as usize]), 6).unwrap();
        for genome in [smooth(&space, &changes, share), path(&space, &changes, share, true)] {
            prop_assert!(genome.to_schedule(&space).is_some());
            prop_assert!((0..6).all(|slot| genome.computes(0, slot)));
        }
        let masks = path(&space, &changes, share, false);
        let wanted = ((share * 6.0).round() as usize).max(1);
        prop_assert_eq!(computed(&masks, 0).matches('1').count(), wanted);
    }
}
