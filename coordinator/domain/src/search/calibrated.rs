//! Seeds from a calibration profile: SmoothCache's thresholds, and optimal step masks by dynamic programming.
//!
//! **smooth**: a kind of component (its mean over the blocks) is reused while its change since it was last computed is
//! below a threshold; the first and the last step are computed. SmoothCache takes the threshold from the user; here,
//! bisection finds it for a given share of computed decisions.
//!
//! **path**: with `K` computed steps, the mask whose reused steps have the smallest sum of changes since their last
//! computed step. Exact, by dynamic programming over (step, computed so far), as in DPCache: either one mask for all
//! slots, or one for each kind of component.
//!
//! A profile is measured at the largest step count. Other step counts read it by relative time: one of their steps is
//! several steps of the profile, and changes are interpolated linearly between lags and extrapolated beyond the largest
//! one. Knows nothing of results: a change of an output is not an error of the picture.

use evocache_proto::domain::{Decision, Profile};

use super::genome::{Genome, Space};

/// Shares of decisions computed.
pub(super) const SHARES: [f64; 6] = [0.4, 0.25, 0.6, 0.3, 0.5, 0.2];
/// Halvings of the threshold.
const BISECTIONS: usize = 40;

/// The largest (kinds of components) × steps². It bounds the memory of a table of changes and the time to find a mask.
/// Reached by FLUX at 295 steps and by PixArt at 418.
const MOST: usize = 1 << 19;

/// Changes by kind of component for one step count: `change(kind, step, age)`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Changes {
    steps: usize,
    kinds: usize,
    /// At `(kind * steps + step) * steps + age`.
    table: Vec<f64>,
}

impl Changes {
    /// Resamples a profile to a step count. `None` if its number of slots differs, or the table would be too large.
    pub(super) fn new(space: &Space, profile: &Profile, steps: u32) -> Option<Self> {
        if profile.slots() != space.slots() {
            return None;
        }
        let (kinds, steps) = (space.components(), steps as usize);
        if kinds * steps * steps > MOST {
            return None;
        }
        let slots: Vec<Vec<usize>> = (0..kinds)
            .map(|kind| (0..space.slots()).filter(|&slot| space.component_of(slot) == kind).collect())
            .collect();
        let stretch = f64::from(profile.steps()) / steps as f64;
        let mut table = vec![0.0; kinds * steps * steps];
        for (kind, slots) in slots.iter().enumerate() {
            for step in 1..steps {
                let at = ((step as f64 * stretch).round() as u32).min(profile.steps() - 1);
                for age in 1..=step {
                    let change = kind_change(profile, slots, at, age as f64 * stretch);
                    table[(kind * steps + step) * steps + age] = change;
                }
            }
        }
        Some(Self { steps, kinds, table })
    }

    fn change(&self, kind: usize, step: usize, age: usize) -> f64 {
        self.table[(kind * self.steps + step) * self.steps + age]
    }

    /// Mean over the kinds.
    fn all(&self, step: usize, age: usize) -> f64 {
        (0..self.kinds).map(|kind| self.change(kind, step, age)).sum::<f64>() / self.kinds as f64
    }
}

/// Mean change of these slots since `lag` steps ago; `lag` may be fractional.
fn kind_change(profile: &Profile, slots: &[usize], step: u32, lag: f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0f64);
    for &slot in slots {
        let known = profile.lags().min(step);
        let at = |lag: u32| if lag == 0 { Some(0.0) } else { profile.change(step, slot, lag).map(f64::from) };
        // Interpolates between two lags, or extrapolates from the last two.
        let below = (lag.floor() as u32).min(known.saturating_sub(1));
        if let (Some(low), Some(high)) = (at(below), at(below + 1)) {
            sum += (low + (high - low) * (lag - f64::from(below))).max(0.0);
            count += 1.0;
        }
    }
    sum / count.max(1.0)
}

/// The share of decisions computed, given each kind's computed steps.
fn share(space: &Space, computed: &[Vec<bool>]) -> f64 {
    let slots = |kind: usize| (0..space.slots()).filter(|&s| space.component_of(s) == kind).count();
    let done: usize = computed.iter().enumerate().map(|(k, row)| row.iter().filter(|&&c| c).count() * slots(k)).sum();
    done as f64 / (space.slots() * computed.first().map_or(1, Vec::len)) as f64
}

fn genome(space: &Space, steps: usize, computed: &[Vec<bool>]) -> Genome {
    Genome::from_fn(space, u32::try_from(steps).unwrap_or(u32::MAX), |step, slot| {
        if computed[space.component_of(slot)][step] { Decision::Compute } else { Decision::Reuse }
    })
}

fn thresholded(changes: &Changes, threshold: f64) -> Vec<Vec<bool>> {
    let rows = (0..changes.kinds).map(|kind| {
        let mut last = 0;
        let computes = |step: usize, last: usize| {
            step == 0 || step + 1 == changes.steps || changes.change(kind, step, step - last) >= threshold
        };
        let row = (0..changes.steps).map(|step| {
            let computes = computes(step, last);
            if computes {
                last = step;
            }
            computes
        });
        row.collect()
    });
    rows.collect()
}

/// SmoothCache with the smallest threshold that computes at most the share `wanted`; if none does, with the largest.
pub(super) fn smooth(space: &Space, changes: &Changes, wanted: f64) -> Genome {
    let (mut low, mut high) = (0.0, changes.table.iter().fold(0.0f64, |a, &b| a.max(b)) + 1e-6);
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if share(space, &thresholded(changes, middle)) > wanted { low = middle } else { high = middle }
    }
    genome(space, changes.steps, &thresholded(changes, high))
}

/// The mask of `count` computed steps, the first among them, with the smallest sum of `change(step, age)` over the
/// rest.
fn shortest(steps: usize, count: usize, change: impl Fn(usize, usize) -> f64) -> Vec<bool> {
    // reused[a][b]: everything between the computed steps a and b is reused from a.
    let mut reused = vec![vec![0.0; steps + 1]; steps];
    for (from, row) in reused.iter_mut().enumerate() {
        for to in from + 2..=steps {
            row[to] = row[to - 1] + change(to - 1, to - 1 - from);
        }
    }
    // best[k][t]: the smallest sum before step t when it is computed and k computed steps come before it.
    let mut best = vec![vec![f64::INFINITY; steps + 1]; count + 1];
    let mut before = vec![vec![0; steps + 1]; count + 1];
    best[0][0] = 0.0;
    for k in 1..=count {
        for to in k..=steps {
            for from in k - 1..to {
                let sum = best[k - 1][from] + reused[from][to];
                if sum < best[k][to] {
                    (best[k][to], before[k][to]) = (sum, from);
                }
            }
        }
    }
    let mut mask = vec![false; steps];
    let mut at = steps;
    for k in (1..=count).rev() {
        at = before[k][at];
        mask[at] = true;
    }
    mask
}

/// The best step mask for a share of computed steps: one for all components, or one for each kind.
pub(super) fn path(space: &Space, changes: &Changes, share: f64, by_kind: bool) -> Genome {
    let count = ((share * changes.steps as f64).round() as usize).clamp(1, changes.steps);
    let rows: Vec<Vec<bool>> = (0..changes.kinds)
        .map(|kind| {
            shortest(changes.steps, count, |step, age| {
                if by_kind { changes.change(kind, step, age) } else { changes.all(step, age) }
            })
        })
        .collect();
    genome(space, changes.steps, &rows)
}

#[cfg(test)]
#[path = "calibrated_tests.rs"]
mod tests;
