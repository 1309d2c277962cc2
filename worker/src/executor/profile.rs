//! The calibration profile: how much the output of each slot changes from step to step in uncached runs.
//!
//! The recorder keeps the last [`LAGS`] outputs of every slot: [`LAGS`] times the memory of a schedule that stores each
//! slot once. The caller chooses the runs; a mean over prompts requires runs of one image each.

use std::collections::VecDeque;

use candle_core::{D, DType, Tensor};
use evocache_proto::domain::{Profile, ProfileError};

use super::observer::Observer;
use crate::files::ModelError;

/// Largest distance, in steps, over which changes are measured. Each one keeps another output of every slot in memory.
pub const LAGS: u32 = 5;

/// Records the changes in uncached runs and averages them.
pub struct ProfileRecorder {
    steps: usize,
    lags: usize,
    slots: usize,
    /// Relative changes summed over the runs, in the order of [`Profile::new`].
    sums: Vec<f64>,
    runs: u32,
    /// The latest outputs of each slot, newest first.
    recent: Vec<VecDeque<Tensor>>,
}

impl ProfileRecorder {
    /// A recorder for runs of `steps` steps over `slots` slots. Returns `None` if a run has fewer than two steps.
    pub fn new(steps: u32, slots: usize) -> Option<Self> {
        let lags = LAGS.min(steps.saturating_sub(1)) as usize;
        let steps = steps as usize;
        let recent = std::iter::repeat_with(VecDeque::new).take(slots).collect();
        (lags > 0).then(|| Self { steps, lags, slots, sums: vec![0.0; lags * steps * slots], runs: 0, recent })
    }

    /// The mean over the runs so far. Fails if a run had non-finite outputs.
    pub fn profile(&self) -> Result<Profile, ProfileError> {
        let runs = f64::from(self.runs.max(1));
        let changes = self.sums.iter().map(|sum| (sum / runs) as f32).collect();
        Profile::new(self.steps as u32, self.lags as u32, changes)
    }
}

impl Observer for ProfileRecorder {
    fn output(&mut self, step: u32, slot: usize, output: &Tensor) -> Result<(), ModelError> {
        let step = step as usize;
        if step >= self.steps || slot >= self.slots {
            return Err(ModelError::Input(format!(
                "a profile of {} steps and {} slots cannot record slot {slot} at step {step}; this is a bug",
                self.steps, self.slots
            )));
        }
        let recent = &mut self.recent[slot];
        if step == 0 {
            recent.clear();
            self.runs += u32::from(slot == 0);
        }
        let size = magnitude(output)?;
        for (lag, older) in recent.iter().enumerate() {
            let difference = magnitude(&(output - older)?)?;
            self.sums[(lag * self.steps + step) * self.slots + slot] += relative(difference, size);
        }
        recent.truncate(self.lags - 1);
        recent.push_front(output.clone());
        Ok(())
    }
}

/// `|x|₁`. Rows are summed on the device and the row sums in f64: a single f32 sum of a large output loses digits.
fn magnitude(x: &Tensor) -> Result<f64, ModelError> {
    let rows = x.abs()?.to_dtype(DType::F32)?.sum(D::Minus1)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(rows.into_iter().map(f64::from).sum())
}

/// `difference / size`, and 1 for a change to zero. NaN propagates.
fn relative(difference: f64, size: f64) -> f64 {
    match (size == 0.0, difference == 0.0) {
        (true, true) => 0.0,
        (true, false) => 1.0,
        _ => difference / size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Records runs of one slot with two values per step.
    fn recorded(runs: &[&[[f32; 2]]]) -> Result<Profile, ProfileError> {
        let mut recorder = ProfileRecorder::new(runs[0].len() as u32, 1).unwrap();
        for run in runs {
            for (step, values) in run.iter().enumerate() {
                let output = Tensor::new(&[*values], &Device::Cpu).unwrap();
                recorder.output(step as u32, 0, &output).unwrap();
            }
        }
        recorder.profile()
    }

    #[test]
    fn changes_are_relative_to_the_newer_output_and_a_mean_over_runs() {
        let (one, other) = ([[1.0, -1.0], [2.0, -2.0], [2.0, 2.0]], [[1.0, 1.0]; 3]);
        // |y1 - y0| = 2 of 4, |y2 - y1| = 4 of 4, |y2 - y0| = 4 of 4; the other run does not change.
        assert_eq!(recorded(&[&one]).unwrap().changes(), [0.0, 0.5, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(recorded(&[&one, &other]).unwrap().changes(), [0.0, 0.25, 0.5, 0.0, 0.0, 0.5]);
        assert_eq!(recorded(&[&other, &one]), recorded(&[&one, &other]), "a run does not look back into another");
    }

    #[test]
    fn only_so_many_outputs_are_kept() {
        let run: Vec<[f32; 2]> = (1..=8u8).map(|step| [f32::from(step), 0.0]).collect();
        let profile = recorded(&[&run]).unwrap();
        assert_eq!((profile.steps(), profile.lags()), (8, LAGS));
        assert_eq!(profile.change(7, 0, LAGS), Some(5.0 / 8.0));
        assert_eq!(profile.change(5, 0, LAGS), Some(5.0 / 6.0));
        assert!(ProfileRecorder::new(1, 1).is_none());
    }

    #[test]
    fn an_output_of_zeros_is_a_whole_change_or_none_and_nan_is_refused() {
        let profile = recorded(&[&[[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]]).unwrap();
        assert_eq!(
            [(1, 1), (2, 1), (2, 2)].map(|(step, lag)| profile.change(step, 0, lag)),
            [Some(1.0), Some(0.0), Some(1.0)]
        );
        assert!(matches!(recorded(&[&[[1.0, 1.0], [f32::NAN, 1.0]]]), Err(ProfileError::Value { index: 1, .. })));
    }

    #[test]
    fn what_it_was_not_made_for_is_refused() {
        let mut recorder = ProfileRecorder::new(3, 1).unwrap();
        let output = Tensor::new(&[[1f32]], &Device::Cpu).unwrap();
        assert!(recorder.output(3, 0, &output).is_err() && recorder.output(0, 1, &output).is_err());
    }
}
