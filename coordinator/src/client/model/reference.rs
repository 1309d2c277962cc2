//! The uncached latency of a search.

use crate::client::foreign::Foreign;

/// The uncached latency on one kind of device, over all evaluations of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// The device.
    pub device: Foreign,
    /// Microseconds per image: the median.
    pub uncached_us: f64,
    /// Half the distance between the quartiles, relative to the median.
    pub spread: f64,
    /// The number of evaluations.
    pub measurements: u64,
}
