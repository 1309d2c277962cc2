//! Estimates of numbers that are measured with noise.

/// An estimate with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The estimated value.
    pub value: f64,
    /// Its relative standard deviation.
    pub deviation: f64,
    /// Number of direct measurements behind it.
    pub measurements: u32,
}
