//! The calibration profile: how much each slot's output changes from step to step in the uncached run.

use super::limits::MAX_CHANGES;

/// The largest number of lags of a profile.
pub const MAX_LAGS: u32 = 16;

/// Relative L1 changes of the slots' outputs, as means over the prompts. Constructed by [`Profile::new`] only.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    steps: u32,
    lags: u32,
    slots: usize,
    changes: Vec<f32>,
}

/// Why numbers do not make a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Steps or lags out of range.
    #[error("a profile has 1 to 1000 steps and 1 to {MAX_LAGS} lags, fewer than steps; found {steps} and {lags}")]
    Size {
        /// Its steps.
        steps: u32,
        /// Its lags.
        lags: u32,
    },
    /// More changes than [`MAX_CHANGES`].
    #[error("{0} changes, at most {MAX_CHANGES} are supported: measure fewer lags")]
    Many(usize),
    /// The number of changes is not a multiple of lags times steps.
    #[error("{found} changes are not a positive multiple of {lags} lags times {steps} steps")]
    Rows {
        /// The number of changes.
        found: usize,
        /// Its steps.
        steps: u32,
        /// Its lags.
        lags: u32,
    },
    /// A change that is negative, infinite or NaN.
    #[error("change {index} is {value}; it must be finite and not negative")]
    Value {
        /// Index of the change.
        index: usize,
        /// The value, as text.
        value: String,
    },
}

impl Profile {
    /// Checks the numbers. The change of (lag, step, slot) is at index `((lag - 1) * steps + step) * slots + slot`.
    pub fn new(steps: u32, lags: u32, changes: Vec<f32>) -> Result<Self, ProfileError> {
        if !(1..=super::MAX_STEPS).contains(&steps) || !(1..=MAX_LAGS).contains(&lags) || lags >= steps {
            return Err(ProfileError::Size { steps, lags });
        }
        if changes.len() > MAX_CHANGES {
            return Err(ProfileError::Many(changes.len()));
        }
        let rows = steps as usize * lags as usize;
        if changes.is_empty() || !changes.len().is_multiple_of(rows) {
            return Err(ProfileError::Rows { found: changes.len(), steps, lags });
        }
        if let Some(index) = changes.iter().position(|c| !(c.is_finite() && *c >= 0.0)) {
            return Err(ProfileError::Value { index, value: changes[index].to_string() });
        }
        Ok(Self { steps, lags, slots: changes.len() / rows, changes })
    }

    /// Steps of the uncached run.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The number of lags, which is the largest lag.
    pub fn lags(&self) -> u32 {
        self.lags
    }

    /// Slots per step.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// All changes, in the order of [`Profile::new`].
    pub fn changes(&self) -> &[f32] {
        &self.changes
    }

    /// `|y(step) - y(step - lag)| / |y(step)|` of a slot's output; `None` if the profile does not have it.
    pub fn change(&self, step: u32, slot: usize, lag: u32) -> Option<f32> {
        let known = (1..=self.lags.min(step)).contains(&lag) && step < self.steps && slot < self.slots;
        let row = (lag.wrapping_sub(1) as usize) * self.steps as usize + step as usize;
        if known { self.changes.get(row * self.slots + slot).copied() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_by_step_slot_and_lag() {
        // 3 steps, 2 lags, 2 slots.
        let profile = Profile::new(3, 2, (0..12u8).map(f32::from).collect()).unwrap();
        assert_eq!(profile.slots(), 2);
        assert_eq!(
            [profile.change(1, 0, 1), profile.change(2, 1, 1), profile.change(2, 1, 2)],
            [Some(2.0), Some(5.0), Some(11.0)]
        );
        for (step, slot, lag) in [(0, 0, 1), (1, 0, 2), (1, 2, 1), (3, 0, 1), (2, 0, 0), (2, 0, 3)] {
            assert_eq!(profile.change(step, slot, lag), None);
        }
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        let numbers = |n: usize| vec![0.5; n];
        assert!(matches!(Profile::new(1, 1, numbers(1)), Err(ProfileError::Size { .. })));
        assert!(matches!(Profile::new(4, 17, numbers(68)), Err(ProfileError::Size { .. })));
        assert!(matches!(Profile::new(4, 0, numbers(4)), Err(ProfileError::Size { .. })));
        assert!(matches!(Profile::new(4, 2, numbers(9)), Err(ProfileError::Rows { .. })));
        assert!(matches!(Profile::new(4, 2, vec![]), Err(ProfileError::Rows { .. })));
        for bad in [f32::NAN, f32::INFINITY, -0.1] {
            assert!(matches!(Profile::new(2, 1, vec![0.1, bad]), Err(ProfileError::Value { index: 1, .. })));
        }
    }
}
