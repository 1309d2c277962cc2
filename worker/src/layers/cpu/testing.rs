//! Shared by the kernel tests: reproducible values and a comparison.

use candle_core::{Device, Tensor};

/// A tensor of reproducible values in (-1, 1).
pub(crate) fn sample(shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Panics unless the largest difference is at most `tolerance` times the largest value of `b` (at least 1).
pub(crate) fn assert_close(a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.dims(), b.dims());
    let largest = |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    let (difference, size) = (largest(&(a - b).unwrap()), largest(b).max(1.0));
    assert!(difference <= tolerance * size, "difference {difference:e} at size {size} in {:?}", a.dims());
}
