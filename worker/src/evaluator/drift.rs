//! Detects that the device became slower during a measurement: it throttled, or another process uses it.
//!
//! A candidate's latency is compared with the uncached latencies of earlier evaluations too, so the device must be as
//! fast as it was then. The uncached batches that ran between the candidate's show whether it is.

use evocache_proto::domain::median;

/// How much slower than usual the fastest uncached batch may be, as a fraction. The fastest batch was disturbed least,
/// but varies a little even on an idle device.
const TOLERANCE: f64 = 0.08;

/// How often a disturbed measurement is repeated before the device counts as permanently slower.
pub(super) const REPEATS: u32 = 2;

/// Whether the uncached batches `own` are slower than the `recent` ones of earlier evaluations. False if `recent` is
/// empty.
pub(super) fn disturbed(own: &[f64], recent: &[f64]) -> bool {
    let fastest = own.iter().copied().fold(f64::INFINITY, f64::min);
    // The median of no values is NaN, so the comparison is false.
    fastest > (1.0 + TOLERANCE) * median(recent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slow_throughout_is_disturbed_and_one_slow_batch_is_not() {
        let recent = [100.0, 104.0, 102.0];
        assert!(!disturbed(&[180.0, 103.0, 150.0], &recent));
        assert!(disturbed(&[130.0, 125.0], &recent));
        assert!(!disturbed(&[90.0], &recent), "a device that got faster was disturbed before");
        assert!(!disturbed(&[1e9], &[]));
    }
}
