//! Whether a device changed while a candidate was measured: it got hot and slower, or somebody else came.
//!
//! A candidate's time counts beside the uncached times of the evaluations before it, so it must have been measured on the
//! device as it was then. The uncached batches that ran between its own tell.

use evocache_proto::domain::median;

/// How much slower than usual the fastest uncached batch may be: it is the one that was disturbed least, and still differs
/// a little on an idle device.
const TOLERANCE: f64 = 0.08;

/// How often a disturbed measurement is repeated. Then the device is taken for changed for good.
pub(super) const REPEATS: u32 = 2;

/// Whether uncached batches were slow against the latest ones of before; without these nobody can tell.
pub(super) fn disturbed(own: &[f64], recent: &[f64]) -> bool {
    let fastest = own.iter().copied().fold(f64::INFINITY, f64::min);
    // NaN, the median of nothing, is not exceeded.
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
