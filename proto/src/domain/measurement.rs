//! What a worker measured for one candidate.

use std::time::Duration;

use super::{Direction, Kept, Profile};

/// One quality metric over the calibration prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricValues {
    /// The declared metric.
    pub name: String,
    /// One value per calibration prompt, in their order.
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
    /// Microseconds per image, one sample per timed batch of the candidate.
    pub latency_us: Vec<f64>,
    /// Microseconds per image of uncached batches, interleaved with the others on the same device.
    pub baseline_latency_us: Vec<f64>,
    /// Multiply-accumulates per image.
    pub macs: u64,
    /// Those of the uncached run.
    pub baseline_macs: u64,
    /// Peak bytes of stored outputs per image.
    pub peak_cache_bytes: u64,
    /// Time the device was busy with this evaluation.
    pub device_time: Duration,
    /// How many rounds of timed batches were thrown away because the device was slower than before.
    pub disturbed: u32,
    /// PNG pictures of the first prompts, as many as the measurement plan asks for.
    pub thumbnails: Vec<Vec<u8>>,
    /// Of the uncached run, where it was asked for.
    pub profile: Option<Profile>,
}

/// Why a measurement is not believed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MeasurementError {
    /// A declared metric is missing, or another one is there.
    #[error("metrics must be exactly those declared ({declared}); found ({found})")]
    Metrics {
        /// The names declared at registration.
        declared: String,
        /// The names in the result.
        found: String,
    },
    /// Not one value per prompt.
    #[error("metric '{metric}' has {found} values for {prompts} prompts")]
    Values {
        /// Which metric.
        metric: String,
        /// Values in the result.
        found: usize,
        /// Prompts of the calibration.
        prompts: usize,
    },
    /// NaN, infinite, or of a size that no metric has: sums and ratios of such values say nothing.
    #[error("metric '{metric}' is {value:e} for prompt {prompt}; a value must be 0 or from 1e-30 to 1e15 in size")]
    Value {
        /// Which metric.
        metric: String,
        /// Which prompt; the number of prompts for the baseline's mean.
        prompt: usize,
        /// The value.
        value: f64,
    },
    /// No latency sample, too many, or one that is shorter than a nanosecond or longer than a day.
    #[error("'{field}' must hold 1 to 10000 samples from 0.001 to 8.64e10 microseconds, found {found}")]
    Latency {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        found: String,
    },
    /// No work at all, or more than any device could do in a day.
    #[error("macs ({macs}) and baseline_macs ({baseline}) must be from 1 to 1000000000000000000")]
    Macs {
        /// The candidate's.
        macs: u64,
        /// The uncached run's.
        baseline: u64,
    },
    /// More bytes than any device has.
    #[error("peak_cache_bytes is {0}; at most 1125899906842624 (1 PiB)")]
    CacheBytes(u64),
    /// The device was busy for longer than the worker had the candidate.
    #[error("device_time is {found:?}, and the candidate was handed out {lasted:?} ago")]
    DeviceTime {
        /// What the worker says.
        found: Duration,
        /// How long ago it got the candidate.
        lasted: Duration,
    },
    /// Pictures beyond what the plan asked for, or too large to keep.
    #[error(
        "{found} thumbnails with {bytes} bytes in all; the plan asks for at most {wanted}, of at most 262144 bytes each"
    )]
    Thumbnails {
        /// How many.
        found: usize,
        /// Their total size.
        bytes: usize,
        /// How many the plan asks for.
        wanted: u32,
    },
}

impl Measurement {
    /// Largest thumbnail in bytes.
    pub const MAX_THUMBNAIL: usize = 256 * 1024;
    /// Most multiply-accumulates per image: ratios of them are exact enough, and sums of many do not overflow an `f64`.
    pub const MAX_MACS: u64 = 1_000_000_000_000_000_000;
    /// Most bytes of stored outputs per image.
    pub const MAX_CACHE_BYTES: u64 = 1 << 50;

    /// Checks a measurement against what the worker declared and the search asked for.
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

    /// Checks the time that the device was busy against how long ago the worker got the candidate. The clock may have
    /// been set meanwhile, so it is not taken to the second.
    pub fn check_device_time(&self, lasted: Duration) -> Result<(), MeasurementError> {
        const SLACK: Duration = Duration::from_mins(10);
        if self.device_time > lasted.saturating_add(SLACK) {
            return Err(MeasurementError::DeviceTime { found: self.device_time, lasted });
        }
        Ok(())
    }

    /// Whether another measurement has the same numbers. Pictures are not compared: they are not always at hand.
    pub fn has_numbers_of(&self, other: &Self) -> bool {
        let without = |m: &Self| Self { thumbnails: vec![], ..m.clone() };
        without(self) == without(other)
    }

    /// The quality metric with this name.
    pub fn metric(&self, name: &str) -> Option<&MetricValues> {
        self.metrics.iter().find(|m| m.name == name)
    }

    /// Microseconds per image of the fastest uncached batch, of as many as there are of the candidate's.
    pub fn baseline_latency(&self) -> f64 {
        fastest(&self.baseline_latency_us, self.latency_us.len())
    }

    /// Microseconds per image of the fastest batch, of as many as there are uncached ones.
    ///
    /// The fastest, because every run does the same work and what disturbs it on a shared machine only ever adds: a
    /// mean or a median of a few batches would let a candidate look fast because its uncached neighbours were disturbed.
    /// Of equally many, because the fastest of three is faster than that of two, whatever they measure.
    pub fn latency(&self) -> f64 {
        fastest(&self.latency_us, self.baseline_latency_us.len())
    }

    /// [`latency`](Self::latency) over [`baseline_latency`](Self::baseline_latency).
    pub fn latency_ratio(&self) -> f64 {
        self.latency() / self.baseline_latency()
    }

    /// The mean of a built-in or declared metric; `cache_hit_rate` is the schedule's.
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

/// Whether a value of a metric can be added up and divided by without losing what it says.
fn is_plausible(value: f64) -> bool {
    value == 0.0 || (1e-30..=1e15).contains(&value.abs())
}

/// The smallest of `count` of the samples, on average over every choice of so many; of all if there are no more. NaN for
/// none.
fn fastest(samples: &[f64], count: usize) -> f64 {
    if count >= samples.len() {
        return samples.iter().copied().min_by(f64::total_cmp).unwrap_or(f64::NAN);
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The share of choices that have none of the samples so far, and how many of those have the next one.
    let (mut expected, mut left) = (0.0, 1.0);
    for (before, sample) in sorted.iter().enumerate() {
        let next = (count as f64 / (sorted.len() - before) as f64).min(1.0);
        expected += left * next * sample;
        left *= 1.0 - next;
    }
    expected
}

/// The median; the mean of the middle two for an even count, NaN for none.
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
        // Of three batches the fastest of two, as of the uncached ones: 10 in two pairs of three, 20 in the third.
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
            assert!(m.check(&["clip"], 2, 0).is_err(), "lie {i} was believed");
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
