//! How long an image takes uncached: one figure per search and kind of device, on which all that is told in time rests.
//!
//! Each evaluation measures the uncached run beside its schedule, and each time it comes out a little different. If a
//! schedule's latency were told by its own neighbours, a slower schedule could look faster than a faster one. So a latency
//! in time is a latency ratio times the median of all evaluations' uncached latencies.
//!
//! Samples are counted in classes of a hundredth of a per cent, so that a search of any length keeps a bounded number of
//! them. Absent: ratios (`search/latency.rs`).

use std::collections::BTreeMap;

/// Classes per factor of e.
const CLASSES: f64 = 1e4;

/// The uncached latency on one kind of device.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The device, as workers declare it.
    pub device: String,
    /// Microseconds per image: the median.
    pub uncached_us: f64,
    /// Half the distance between the quartiles, relative to the median.
    pub spread: f64,
    /// Evaluations that it rests on.
    pub measurements: u64,
}

/// Samples in classes: how many, and their sum.
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

    /// The value below which this share of the samples lies.
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
    /// An evaluation on this kind of device had this uncached latency.
    pub fn tell(&mut self, device: &str, uncached_us: f64) {
        if !self.0.contains_key(device) {
            self.0.insert(device.to_owned(), Samples::default());
        }
        if let Some(samples) = self.0.get_mut(device) {
            samples.tell(uncached_us);
        }
    }

    /// Of each kind of device, the one with most measurements first.
    pub fn all(&self) -> Vec<Reference> {
        let mut all: Vec<Reference> = self.0.iter().map(|(device, samples)| reference(device, samples)).collect();
        all.sort_by(|a, b| b.measurements.cmp(&a.measurements).then_with(|| a.device.cmp(&b.device)));
        all
    }

    /// Microseconds per image uncached, on the kind of device with most measurements; `None` before the first.
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
    fn the_median_of_the_commonest_device_counts() {
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
    fn many_samples_need_little_room() {
        let mut references = References::default();
        for i in 0..200_000 {
            references.tell("d", 1000.0 + f64::from(i % 100));
        }
        let median = references.uncached_us().unwrap();
        assert!((median / 1049.5 - 1.0).abs() < 1e-3, "{median}");
        assert!(references.0["d"].classes.len() <= 1000);
    }
}
