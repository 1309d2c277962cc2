//! Random schedules, and the enumeration of small spaces, whose last new schedules random draws would miss.

use evocache_proto::domain::Decision;

use super::genome::{Genome, Space};
use crate::rng::Stream;

/// The largest space that is enumerated, in genomes; it takes less than 0.1 s.
const LISTED: u64 = 1 << 16;

/// A random step count and a random share computed, with each decision drawn separately.
pub(super) fn any_density(space: &Space, stream: &mut Stream) -> Genome {
    let steps = stream.pick(space.steps()).copied().unwrap_or(1);
    let share = stream.unit();
    independent(space, steps, stream, |_| share)
}

/// Each decision drawn separately; `share` is the probability to compute at a relative time in `[0, 1)`.
pub(super) fn independent(space: &Space, steps: u32, stream: &mut Stream, share: impl Fn(f64) -> f64) -> Genome {
    let cached = space.cached(stream);
    Genome::from_fn(space, steps, |step, _| {
        let computes = stream.chance(share(step as f64 / f64::from(steps)));
        if step == 0 || computes { Decision::Compute } else { cached }
    })
}

/// All genomes of the space; none if there are more than [`LISTED`].
pub(super) fn list(space: &Space) -> impl Iterator<Item = Genome> + '_ {
    let decisions: &[Decision] = if space.forecast() {
        &[Decision::Compute, Decision::Reuse, Decision::Forecast]
    } else {
        &[Decision::Compute, Decision::Reuse]
    };
    let base = decisions.len() as u64;
    let genomes = move |steps: u32| {
        let free = u64::from(steps.saturating_sub(1)) * space.slots() as u64;
        u32::try_from(free).ok().and_then(|free| base.checked_pow(free)).unwrap_or(u64::MAX)
    };
    let all = space.steps().iter().fold(0u64, |sum, &steps| sum.saturating_add(genomes(steps)));
    let steps = if all <= LISTED { space.steps() } else { &[] };
    steps.iter().flat_map(move |&steps| {
        (0..genomes(steps)).map(move |mut code| {
            Genome::from_fn(space, steps, |step, _| {
                if step == 0 {
                    return Decision::Compute;
                }
                let decision = decisions[(code % base) as usize];
                code /= base;
                decision
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evocache_proto::domain::Layout;

    use super::*;

    #[test]
    fn a_small_space_is_enumerated_and_a_large_one_is_not() {
        let layout = Arc::new(Layout::pixart(1).unwrap());
        assert_eq!(list(&Space::new(layout.clone(), &[3, 2], false)).count(), 64 + 8);
        assert_eq!(list(&Space::new(layout.clone(), &[3], true)).count(), 729);
        assert_eq!(list(&Space::new(layout, &[1000], true)).count(), 0);
    }
}
