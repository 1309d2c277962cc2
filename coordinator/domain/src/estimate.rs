//! What is believed of a number that was measured with noise.

/// A number with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its relative standard deviation.
    pub deviation: f64,
    /// Measurements of the very thing that it rests on.
    pub measurements: u32,
}
