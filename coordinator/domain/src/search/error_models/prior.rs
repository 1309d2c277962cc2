//! What a calibration profile says of slots and steps before any result: prior means of the drift model.
//!
//! A slot whose output changes twice as much from step to step as the others' is expected to be more sensitive, but
//! not twice as much: what a change does to the picture is not in the profile. Absent: results.

use evocache_proto::domain::Profile;

use super::grid::Grid;

/// How far a prior mean follows the logarithm of a change.
const FOLLOWED: f64 = 0.5;
/// Changes below this share of their mean are not believed.
const LEAST: f64 = 0.02;

/// Logarithms of sensitivities and step weights, relative to their means.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prior {
    pub(super) slots: Vec<f64>,
    pub(super) steps: Vec<f64>,
}

impl Prior {
    /// Before any profile all are alike.
    pub(super) fn flat(grid: &Grid) -> Self {
        Self { slots: vec![0.0; grid.slots], steps: vec![0.0; grid.steps] }
    }

    /// By the changes since one step ago. Flat if the profile is of another size.
    pub(super) fn new(grid: &Grid, profile: &Profile) -> Self {
        if profile.slots() != grid.slots || profile.steps() as usize != grid.steps {
            return Self::flat(grid);
        }
        let change = |step: usize, slot: usize| profile.change(step as u32, slot, 1).map_or(0.0, f64::from);
        let steps = || 1..grid.steps;
        let slots = (0..grid.slots).map(|slot| steps().map(|step| change(step, slot)).sum());
        let mut by_step: Vec<f64> = steps().map(|step| (0..grid.slots).map(|slot| change(step, slot)).sum()).collect();
        // Nothing is ever reused at the first step.
        by_step.insert(0, by_step.first().copied().unwrap_or(0.0));
        Self { slots: relative(slots.collect()), steps: relative(by_step) }
    }
}

fn relative(changes: Vec<f64>) -> Vec<f64> {
    let mean = changes.iter().sum::<f64>() / changes.len() as f64;
    if mean <= 0.0 {
        return vec![0.0; changes.len()];
    }
    let logarithms: Vec<f64> = changes.iter().map(|c| FOLLOWED * (c / mean).max(LEAST).ln()).collect();
    let middle = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
    logarithms.into_iter().map(|l| l - middle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_more_is_expected_to_matter_more() {
        let grid = Grid { steps: 4, slots: 2, counts: vec![4] };
        // Slot 1 changes four times as much; step 3 twice as much as the others.
        let change = |step: usize, slot: usize| [1.0, 4.0][slot] * if step == 3 { 2.0 } else { 1.0 };
        let changes = (0..4).flat_map(|t| (0..2).map(move |s| if t == 0 { 0.0 } else { 0.1 * change(t, s) }));
        let prior = Prior::new(&grid, &Profile::new(4, 1, changes.map(|c| c as f32).collect()).unwrap());
        assert!((prior.slots[1] - prior.slots[0] - FOLLOWED * 4f64.ln()).abs() < 1e-6, "{prior:?}");
        assert!((prior.steps[3] - prior.steps[2] - FOLLOWED * 2f64.ln()).abs() < 1e-6, "{prior:?}");
        assert!(prior.slots.iter().sum::<f64>().abs() < 1e-9 && prior.steps.iter().sum::<f64>().abs() < 1e-9);
        let still = Profile::new(4, 1, vec![0.0; 8]).unwrap();
        assert_eq!(Prior::new(&grid, &still), Prior::flat(&grid));
        let other = Profile::new(4, 1, vec![0.5; 12]).unwrap();
        assert_eq!(Prior::new(&grid, &other), Prior::flat(&grid));
    }
}
