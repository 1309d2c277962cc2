//! What a worker measured for one candidate.

use std::time::Duration;

use super::{Direction, Kept, Profile};

/// The values of one quality metric over the prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricValues {
    /// Name of the metric, as declared.
    pub name: String,
    /// One value per evaluated prompt, in their order.
    pub values: Vec<f64>,
    /// Mean over the same prompts of the uncached run, measured by the same worker.
    pub baseline_mean: f64,
}

impl MetricValues {
    /// Mean over the prompts.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    /// The quality that this measurement kept of the uncached run beside it.
    pub fn kept(&self, direction: Direction) -> Kept {
        Kept::new(direction, self.mean(), self.baseline_mean)
    }
}

/// The result of one evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// Quality, one entry per declared metric.
    pub metrics: Vec<MetricValues>,
    /// Latency in microseconds per image, one sample per timed batch of the candidate.
    pub latency_us: Vec<f64>,
    /// The same for uncached batches, interleaved with those of the candidate on the same device.
    pub baseline_latency_us: Vec<f64>,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Multiply-accumulates per image of the uncached run.
    pub baseline_macs: u64,
    /// Peak bytes of stored outputs per image.
    pub peak_cache_bytes: u64,
    /// Time for which the device was busy with this evaluation.
    pub device_time: Duration,
    /// Number of rounds of timed batches in which the device was slower than in the evaluations before.
    pub disturbed: u32,
    /// Pictures of the first prompts as PNG, at most as many as the measurement plan asks for.
    pub thumbnails: Vec<Vec<u8>>,
    /// The calibration profile of the uncached run, if the lease asked for it.
    pub profile: Option<Profile>,
}

/// Why a measurement is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MeasurementError {
    /// The metrics differ from those declared.
    #[error("metrics must be those declared ({declared}); found ({found})")]
    Metrics {
        /// The names declared at registration.
        declared: String,
        /// The names in the result.
        found: String,
    },
    /// The number of values is not that of the prompts.
    #[error("metric '{metric}' has {found} values for {prompts} prompts")]
    Values {
        /// Name of the metric.
        metric: String,
        /// Values in the result.
        found: usize,
        /// Prompts of the lease.
        prompts: usize,
    },
    /// A value is NaN, infinite, or so large or small that sums and ratios lose their meaning.
    #[error("metric '{metric}' is {value:e} for prompt {prompt}; it must be 0 or of magnitude 1e-30 to 1e15")]
    Value {
        /// Name of the metric.
        metric: String,
        /// Index of the prompt; the number of prompts stands for `baseline_mean`.
        prompt: usize,
        /// The value.
        value: f64,
    },
    /// No latency sample, too many, or one below a nanosecond or above a day.
    #[error("'{field}' must have 1 to 10000 samples of 0.001 to 8.64e10 microseconds, found {found}")]
    Latency {
        /// Name of the field.
        field: &'static str,
        /// The number of samples, or the invalid sample.
        found: String,
    },
    /// Multiply-accumulates of 0, or more than any device could do in a day.
    #[error("macs ({macs}) and baseline_macs ({baseline}) must be 1 to 1000000000000000000")]
    Macs {
        /// Those of the candidate.
        macs: u64,
        /// Those of the uncached run.
        baseline: u64,
    },
    /// More cache memory than any device has.
    #[error("peak_cache_bytes is {0}; at most 1125899906842624 (1 PiB)")]
    CacheBytes(u64),
    /// The device time exceeds the time since the grant.
    #[error("device_time is {found:?}, but the candidate was granted {lasted:?} ago")]
    DeviceTime {
        /// The device time that the worker reported.
        found: Duration,
        /// The time since the grant.
        lasted: Duration,
    },
    /// More thumbnails than the plan asks for, or one that is too large.
    #[error(
        "{found} thumbnails with {bytes} bytes in all; the plan asks for at most {wanted}, of at most 262144 bytes each"
    )]
    Thumbnails {
        /// The number of thumbnails.
        found: usize,
        /// Their total size in bytes.
        bytes: usize,
        /// The number that the plan asks for.
        wanted: u32,
    },
}

impl Measurement {
    /// The most bytes of a thumbnail.
    pub const MAX_THUMBNAIL: usize = 256 * 1024;
    /// The most multiply-accumulates per image.
    pub const MAX_MACS: u64 = 1_000_000_000_000_000_000;
    /// The most bytes of stored outputs per image.
    pub const MAX_CACHE_BYTES: u64 = 1 << 50;

    /// Checks the measurement against the declared metrics, the number of prompts of the lease and the number of
    /// thumbnails of the plan.
    pub fn check(&self, declared: &[&str], prompts: usize, thumbnails: u32) -> Result<(), MeasurementError> {
        let found: Vec<&str> = self.metrics.iter().map(|m| m.name.as_str()).collect();
        let (mut a, mut b) = (found.clone(), declared.to_vec());
        a.sort_unstable();
        b.sort_unstable();
        if a != b {
            return Err(MeasurementError::Metrics { declared: declared.join(", "), found: found.join(", ") });
        }
        for metric in &self.metrics {
            if metric.values.len() != prompts {
                return Err(MeasurementError::Values {
                    metric: metric.name.clone(),
                    found: metric.values.len(),
                    prompts,
                });
            }
            let all = metric.values.iter().chain([&metric.baseline_mean]);
            if let Some((prompt, &value)) = all.enumerate().find(|&(_, &value)| !is_plausible(value)) {
                return Err(MeasurementError::Value { metric: metric.name.clone(), prompt, value });
            }
        }
        for (field, samples) in [("latency_us", &self.latency_us), ("baseline_latency_us", &self.baseline_latency_us)] {
            if samples.is_empty() || samples.len() > 10_000 {
                return Err(MeasurementError::Latency { field, found: format!("{} samples", samples.len()) });
            }
            if let Some(bad) = samples.iter().find(|&&s| !(1e-3..=8.64e10).contains(&s)) {
                return Err(MeasurementError::Latency { field, found: bad.to_string() });
            }
        }
        if [self.macs, self.baseline_macs].iter().any(|macs| !(1..=Self::MAX_MACS).contains(macs)) {
            return Err(MeasurementError::Macs { macs: self.macs, baseline: self.baseline_macs });
        }
        if self.peak_cache_bytes > Self::MAX_CACHE_BYTES {
            return Err(MeasurementError::CacheBytes(self.peak_cache_bytes));
        }
        if self.thumbnails.len() > thumbnails as usize
            || self.thumbnails.iter().any(|picture| picture.len() > Self::MAX_THUMBNAIL)
        {
            return Err(MeasurementError::Thumbnails {
                found: self.thumbnails.len(),
                bytes: self.thumbnails.iter().map(Vec::len).sum(),
                wanted: thumbnails,
            });
        }
        Ok(())
    }

    /// Checks the device time against the time since the grant. Allows ten minutes more, because the clock may have
    /// been set meanwhile.
    pub fn check_device_time(&self, lasted: Duration) -> Result<(), MeasurementError> {
        const SLACK: Duration = Duration::from_mins(10);
        if self.device_time > lasted.saturating_add(SLACK) {
            return Err(MeasurementError::DeviceTime { found: self.device_time, lasted });
        }
        Ok(())
    }

    /// Whether another measurement has the same numbers. Does not compare pictures, which are not kept in memory.
    pub fn has_numbers_of(&self, other: &Self) -> bool {
        let without = |m: &Self| Self { thumbnails: vec![], ..m.clone() };
        without(self) == without(other)
    }

    /// The quality metric with this name.
    pub fn metric(&self, name: &str) -> Option<&MetricValues> {
        self.metrics.iter().find(|m| m.name == name)
    }

    /// Latency in microseconds per image of the fastest uncached batch, out of as many as the candidate has. See
    /// [`latency`](Self::latency).
    pub fn baseline_latency(&self) -> f64 {
        fastest(&self.baseline_latency_us, self.latency_us.len())
    }

    /// Latency in microseconds per image of the candidate's fastest batch, out of as many as there are uncached ones.
    ///
    /// The fastest, because every batch does the same work and interference on a shared machine only adds time. With a
    /// mean or median of a few batches, a candidate could look fast because its uncached batches were disturbed. Out of
    /// equally many, because the minimum of three samples is smaller than that of two.
    pub fn latency(&self) -> f64 {
        fastest(&self.latency_us, self.baseline_latency_us.len())
    }

    /// [`latency`](Self::latency) over [`baseline_latency`](Self::baseline_latency).
    pub fn latency_ratio(&self) -> f64 {
        self.latency() / self.baseline_latency()
    }

    /// The value of a built-in metric, or the mean of a declared one. `cache_hit_rate` is that of the schedule.
    pub fn value(&self, metric: &str, cache_hit_rate: f64) -> Option<f64> {
        match metric {
            "latency_us" => Some(self.latency()),
            "latency_ratio" => Some(self.latency_ratio()),
            "macs" => Some(self.macs as f64),
            "macs_ratio" => Some(self.macs as f64 / self.baseline_macs as f64),
            "cache_bytes" => Some(self.peak_cache_bytes as f64),
            "cache_hit_rate" => Some(cache_hit_rate),
            declared => self.metric(declared).map(MetricValues::mean),
        }
    }
}

/// Whether a metric value is small enough to sum and large enough to divide by.
fn is_plausible(value: f64) -> bool {
    value == 0.0 || (1e-30..=1e15).contains(&value.abs())
}

/// The expected minimum of `count` samples drawn without replacement; the minimum of all if there are no more. NaN for
/// no samples.
fn fastest(samples: &[f64], count: usize) -> f64 {
    if count >= samples.len() {
        return samples.iter().copied().min_by(f64::total_cmp).unwrap_or(f64::NAN);
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    // `left`: the share of draws without any sample so far. `next`: the share of those that have the next one.
    let (mut expected, mut left) = (0.0, 1.0);
    for (before, sample) in sorted.iter().enumerate() {
        let next = (count as f64 / (sorted.len() - before) as f64).min(1.0);
        expected += left * next * sample;
        left *= 1.0 - next;
    }
    expected
}

/// The median: the mean of the middle two for an even count, NaN for no samples.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (n, middle) if n % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Measurement {
        Measurement {
            metrics: vec![MetricValues { name: "clip".into(), values: vec![0.5, 0.7], baseline_mean: 0.6 }],
            latency_us: vec![30.0, 10.0, 20.0],
            baseline_latency_us: vec![40.0, 60.0],
            macs: 5,
            baseline_macs: 10,
            peak_cache_bytes: 1,
            device_time: Duration::from_secs(1),
            disturbed: 0,
            thumbnails: vec![],
            profile: None,
        }
    }

    #[test]
    fn values_are_the_fastest_times_means_and_ratios() {
        let m = good();
        assert_eq!(m.check(&["clip"], 2, 0), Ok(()));
        let values = ["latency_us", "macs_ratio", "cache_hit_rate", "clip"].map(|n| m.value(n, 0.25));
        // There are two uncached batches, so two of three: the minimum is 10 in two of the three pairs, 20 in the
        // other.
        assert_eq!(values, [Some((10.0 + 10.0 + 20.0) / 3.0), Some(0.5), Some(0.25), Some(0.6)]);
        assert_eq!(m.baseline_latency(), 40.0);
        assert_eq!(m.value("latency_ratio", 0.0), Some(m.latency() / 40.0));
        assert_eq!((median(&m.latency_us), median(&m.baseline_latency_us)), (20.0, 50.0));
        assert_eq!(m.value("other", 0.0), None);
    }

    #[test]
    fn the_fastest_of_some_is_the_mean_over_all_choices() {
        let samples = [7.0, 3.0, 9.0, 4.0, 3.0];
        for count in 1..=samples.len() {
            let choices = (0..1u32 << samples.len()).filter(|choice| choice.count_ones() as usize == count);
            let smallest = |choice: u32| {
                let chosen = samples.iter().enumerate().filter(|(i, _)| choice >> i & 1 == 1);
                chosen.map(|(_, &sample)| sample).fold(f64::INFINITY, f64::min)
            };
            let all: Vec<f64> = choices.map(smallest).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            assert!((fastest(&samples, count) - mean).abs() < 1e-12, "of {count}");
        }
        assert_eq!((fastest(&samples, 9), fastest(&[5.0], 1)), (3.0, 5.0));
        assert!(fastest(&[], 0).is_nan() && fastest(&[], 2).is_nan());
    }

    #[test]
    fn a_lie_is_not_believed() {
        type Spoil = fn(&mut Measurement);
        let spoils: [Spoil; 16] = [
            |m| m.metrics[0].values[1] = f64::NAN,
            |m| m.metrics[0].baseline_mean = f64::INFINITY,
            |m| m.metrics[0].values.truncate(1),
            |m| m.metrics.clear(),
            |m| m.latency_us[0] = -1.0,
            |m| m.baseline_latency_us.clear(),
            |m| m.latency_us[0] = f64::NAN,
            |m| m.macs = 0,
            |m| m.thumbnails.push(vec![]),
            |m| m.metrics[0].values[0] = f64::MAX,
            |m| m.metrics[0].baseline_mean = -5e-324,
            |m| m.latency_us[0] = 5e-324,
            |m| m.baseline_latency_us[0] = 8.65e10,
            |m| m.macs = u64::MAX,
            |m| m.baseline_macs = 0,
            |m| m.peak_cache_bytes = u64::MAX,
        ];
        for (i, spoil) in spoils.iter().enumerate() {
            let mut m = good();
            spoil(&mut m);
            assert!(m.check(&["clip"], 2, 0).is_err(), "lie {i} was accepted");
        }
        let mut m = good();
        m.device_time = Duration::from_secs(1 << 60);
        assert!(m.check_device_time(Duration::from_secs(3600)).is_err());
        assert_eq!(m.check_device_time(Duration::MAX), Ok(()));
    }

    #[test]
    fn the_same_numbers_are_the_same_result_whatever_the_pictures() {
        let (a, mut b) = (good(), good());
        b.thumbnails.push(vec![1]);
        assert!(a.has_numbers_of(&b));
        b.latency_us[1] += 1.0;
        assert!(!a.has_numbers_of(&b));
    }
}
