//! The uncached latency per image: one reference per search and kind of device, used for every latency in microseconds.
//!
//! Each evaluation measures the uncached run beside its schedule, with noise. If a schedule's latency in microseconds
//! used its own uncached measurement, a slower schedule could appear faster than a faster one. So it is the latency
//! ratio times the median uncached latency of all evaluations.
//!
//! Samples are counted in classes 0.01 % wide, so their number is bounded in a search of any length. Does not estimate
//! ratios: that is `search/latency.rs`.

use std::collections::BTreeMap;

/// Classes per factor of e.
const CLASSES: f64 = 1e4;

/// The uncached latency on one kind of device.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The device, as workers declare it.
    pub device: String,
    /// Median uncached latency, in microseconds per image.
    pub uncached_us: f64,
    /// Half the distance between the quartiles, relative to the median.
    pub spread: f64,
    /// Number of evaluations.
    pub measurements: u64,
}

/// Samples by class: their number and their sum.
#[derive(Debug, Clone, Default, PartialEq)]
struct Samples {
    classes: BTreeMap<i64, (u64, f64)>,
    count: u64,
}

impl Samples {
    fn tell(&mut self, value: f64) {
        let class = self.classes.entry((value.ln() * CLASSES).round() as i64).or_default();
        *class = (class.0 + 1, class.1 + value);
        self.count += 1;
    }

    /// The value below which `share` of the samples lie.
    fn quantile(&self, share: f64) -> f64 {
        let mut left = (share * self.count as f64).ceil().max(1.0) as u64;
        for (count, sum) in self.classes.values() {
            if left <= *count {
                return sum / *count as f64;
            }
            left -= count;
        }
        f64::NAN
    }
}

/// The uncached latencies of one search.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct References(BTreeMap<String, Samples>);

impl References {
    /// Adds the uncached latency of an evaluation on this kind of device, in microseconds per image.
    pub fn tell(&mut self, device: &str, uncached_us: f64) {
        if !self.0.contains_key(device) {
            self.0.insert(device.to_owned(), Samples::default());
        }
        if let Some(samples) = self.0.get_mut(device) {
            samples.tell(uncached_us);
        }
    }

    /// The references of all kinds of devices, most measurements first.
    pub fn all(&self) -> Vec<Reference> {
        let mut all: Vec<Reference> = self.0.iter().map(|(device, samples)| reference(device, samples)).collect();
        all.sort_by(|a, b| b.measurements.cmp(&a.measurements).then_with(|| a.device.cmp(&b.device)));
        all
    }

    /// The uncached latency on the kind of device with most measurements, in microseconds per image; `None` before the
    /// first measurement.
    pub fn uncached_us(&self) -> Option<f64> {
        let most = self.0.iter().max_by(|a, b| a.1.count.cmp(&b.1.count).then_with(|| b.0.cmp(a.0)));
        most.map(|(_, samples)| samples.quantile(0.5))
    }
}

fn reference(device: &str, samples: &Samples) -> Reference {
    let uncached_us = samples.quantile(0.5);
    let spread = (samples.quantile(0.75) - samples.quantile(0.25)) / 2.0 / uncached_us;
    Reference { device: device.to_owned(), uncached_us, spread, measurements: samples.count }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_the_median_on_the_most_common_device() {
        let mut references = References::default();
        assert_eq!((references.uncached_us(), references.all()), (None, vec![]));
        for us in [100.0, 140.0, 110.0, 900.0, 90.0] {
            references.tell("b", us);
        }
        references.tell("a", 5.0);
        let all = references.all();
        assert_eq!((all[0].device.as_str(), all[0].uncached_us, all[0].measurements), ("b", 110.0, 5));
        assert!((all[0].spread - 20.0 / 110.0).abs() < 1e-9, "{all:?}");
        assert_eq!((all[1].device.as_str(), all[1].uncached_us, all[1].spread), ("a", 5.0, 0.0));
        assert_eq!(references.uncached_us(), Some(110.0));
    }

    #[test]
    fn many_samples_take_bounded_memory() {
        let mut references = References::default();
        for i in 0..200_000 {
            references.tell("d", 1000.0 + f64::from(i % 100));
        }
        let median = references.uncached_us().unwrap();
        assert!((median / 1049.5 - 1.0).abs() < 1e-3, "{median}");
        assert!(references.0["d"].classes.len() <= 1000);
    }
}
