//! How far the timings of a search can be trusted: the uncached run is measured beside every candidate, and should take
//! the same time each time.

use std::collections::BTreeMap;

use evocache_proto::domain::Spread;

use crate::cli::kit::units::spread;
use crate::client::{Evaluation, Foreign};

/// The fewest measurements of a worker that allow a judgement.
const ENOUGH: usize = 8;
/// A larger ratio of half the interquartile range to the median gives a warning.
const STEADY: f64 = 0.1;

/// Prior for the spread of timed batches, with the weight of two measurements.
const BATCHES: Spread = Spread::guess(0.1, 2.0);

/// Relative standard deviation of an evaluation's latency: of the coordinator's estimate from all measurements of the
/// schedule if there is one, otherwise from the spread of its timed batches.
pub fn deviation(e: &Evaluation) -> f64 {
    let logs = |samples: &[f64]| Spread::of(samples.iter().map(|t| t.ln()).collect::<Vec<_>>().into_iter());
    let measured = || {
        let m = &e.measurement;
        BATCHES.and(logs(&m.latency_us)).and(logs(&m.baseline_latency_us)).variance().sqrt()
    };
    e.estimate.map_or_else(measured, |l| l.deviation)
}

/// A warning if the uncached latency of a worker varies too much.
pub fn noise(evaluations: &[Evaluation]) -> Option<String> {
    let mut by_worker: BTreeMap<&Foreign, Vec<f64>> = BTreeMap::new();
    for e in evaluations {
        by_worker.entry(&e.worker_name).or_default().push(e.measurement.baseline_latency() / 1e3);
    }
    warning(&by_worker)
}

fn warning(by_worker: &BTreeMap<&Foreign, Vec<f64>>) -> Option<String> {
    let rated = by_worker.iter().filter(|(_, samples)| samples.len() >= ENOUGH).map(|(worker, samples)| {
        let median = evocache_proto::domain::median(samples);
        (spread(samples) / median, median, worker, samples)
    });
    let (stray, median, worker, samples) = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    if stray <= STEADY {
        return None;
    }
    let (low, high) = samples.iter().fold((f64::MAX, f64::MIN), |(low, high), &s| (low.min(s), high.max(s)));
    Some(format!(
        "timings vary: the same uncached run took {low:.0} to {high:.0} ms per image on worker '{worker}' \
         (median {median:.0} ±{:.0} %); other programs on that machine, or more workers than cores, make speed-ups of \
         single schedules uncertain",
        100.0 * stray
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_busy_with_other_work_gives_a_warning() {
        let steady: Vec<f64> = (0..20).map(|i| 100.0 + f64::from(i % 3)).collect();
        let busy: Vec<f64> = (0..20).map(|i| 100.0 + 40.0 * f64::from(i % 3)).collect();
        let (a, b) = (Foreign::from("a"), Foreign::from("b"));
        assert_eq!(warning(&BTreeMap::from([(&a, steady.clone())])), None);
        let told = warning(&BTreeMap::from([(&a, steady), (&b, busy.clone())]));
        assert!(told.as_ref().is_some_and(|t| t.contains("'b'") && t.contains("100 to 180 ms")), "{told:?}");
        assert_eq!(warning(&BTreeMap::from([(&b, busy[..3].to_vec())])), None, "too few to tell");
        assert_eq!(warning(&BTreeMap::new()), None);
    }
}
