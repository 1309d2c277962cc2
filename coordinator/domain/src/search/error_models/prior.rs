//! Prior means of the age model from a calibration profile, before any result.
//!
//! A slot whose output changes twice as much from step to step as others is expected to be more sensitive, but less
//! than twice: the profile does not contain the effect of a change on the picture. Knows nothing of results.

use evocache_proto::domain::Profile;

use super::grid::Grid;

/// The factor from the logarithm of a change to a prior mean.
const FOLLOWED: f64 = 0.5;
/// Changes below this share of their mean are raised to it.
const LEAST: f64 = 0.02;

/// Logarithms of sensitivities and step weights, relative to their means.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prior {
    pub(super) slots: Vec<f64>,
    pub(super) steps: Vec<f64>,
}

impl Prior {
    /// The prior without a profile: all means are equal.
    pub(super) fn flat(grid: &Grid) -> Self {
        Self { slots: vec![0.0; grid.slots], steps: vec![0.0; grid.steps] }
    }

    /// From the changes since the step before. Flat if the profile has another size.
    pub(super) fn new(grid: &Grid, profile: &Profile) -> Self {
        if profile.slots() != grid.slots || profile.steps() as usize != grid.steps {
            return Self::flat(grid);
        }
        let change = |step: usize, slot: usize| profile.change(step as u32, slot, 1).map_or(0.0, f64::from);
        let steps = || 1..grid.steps;
        let slots = (0..grid.slots).map(|slot| steps().map(|step| change(step, slot)).sum());
        let mut by_step: Vec<f64> = steps().map(|step| (0..grid.slots).map(|slot| change(step, slot)).sum()).collect();
        // Step 0 always computes, so it has no change; it gets that of step 1.
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
    fn slots_and_steps_that_change_more_have_larger_prior_means() {
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
