//! The Fréchet distance between two normal distributions, from means and covariances accumulated batch by batch.

use candle_core::Tensor;
use nalgebra::{DMatrix, DVector};

use crate::files::error::{ModelError, Result};

/// A pivot below this share of the largest is rounding error: the rank of the matrix is reached.
const RANK: f64 = 1e-13;

/// Accumulates mean and covariance of vectors, in f64.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    count: usize,
    /// The first vector. Sums are of differences from it, so a large mean costs no digits.
    origin: DVector<f64>,
    sum: DVector<f64>,
    products: DMatrix<f64>,
}

impl Moments {
    /// The moments of an empty set of vectors of `size` values.
    pub(super) fn new(size: usize) -> Self {
        let zeros = DVector::zeros(size);
        Self { count: 0, origin: zeros.clone(), sum: zeros, products: DMatrix::zeros(size, size) }
    }

    /// Adds vectors `[b, size]`.
    pub(super) fn add(&mut self, vectors: &Tensor) -> Result<()> {
        let (count, size) = vectors.dims2()?;
        if size != self.sum.len() {
            return Err(ModelError::Input(format!("expected vectors of {} values, got {size}", self.sum.len())));
        }
        let values = vectors.flatten_all()?.to_vec1::<f32>()?;
        let mut columns = DMatrix::from_iterator(size, count, values.into_iter().map(f64::from));
        if self.count == 0 && count > 0 {
            self.origin = columns.column(0).into_owned();
        }
        for mut column in columns.column_iter_mut() {
            column -= &self.origin;
        }
        self.sum += columns.column_sum();
        self.products.gemm(1.0, &columns, &columns.transpose(), 1.0);
        self.count += count;
        Ok(())
    }

    fn mean(&self) -> DVector<f64> {
        &self.origin + &self.sum / self.count as f64
    }

    /// The sample covariance, with divisor `count - 1`.
    fn covariance(&self) -> DMatrix<f64> {
        let mut covariance = self.products.clone();
        covariance.ger(-1.0 / self.count as f64, &self.sum, &self.sum, 1.0);
        covariance / (self.count as f64 - 1.0)
    }
}

/// `‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½` (Dowson and Landau, 1982).
pub(super) fn distance(a: &Moments, b: &Moments) -> Result<f64> {
    // The covariance of fewer vectors has the lower rank, which makes the Cholesky factor smaller.
    let (few, many) = if a.count <= b.count { (a, b) } else { (b, a) };
    if few.count < 2 {
        let (a, b) = (a.count, b.count);
        return Err(ModelError::Input(format!("sets of {a} and {b} pictures have no covariance: each needs two")));
    }
    let (first, second) = (few.covariance(), many.covariance());
    // With Σ₁ = L Lᵀ, the eigenvalues of Σ₁ Σ₂ are those of the symmetric Lᵀ Σ₂ L, and zeros.
    let factor = cholesky(&first);
    let symmetric = factor.transpose() * &second * &factor;
    let roots: f64 = if symmetric.is_empty() {
        0.0
    } else {
        symmetric.symmetric_eigenvalues().iter().map(|value| value.max(0.0).sqrt()).sum()
    };
    Ok((few.mean() - many.mean()).norm_squared() + first.trace() + second.trace() - 2.0 * roots)
}

/// Pivoted Cholesky factor `L` of a positive semidefinite matrix, with as many columns as its rank: `matrix = L Lᵀ`.
fn cholesky(matrix: &DMatrix<f64>) -> DMatrix<f64> {
    let size = matrix.nrows();
    let mut left = matrix.diagonal();
    let least = RANK * left.max();
    let mut factor = DMatrix::zeros(size, size);
    let mut rank = 0;
    while rank < size {
        let (pivot, value) = left.argmax();
        // NaN cannot be a pivot either.
        if value.is_nan() || value <= least {
            break;
        }
        let mut column = matrix.column(pivot).into_owned();
        let done = factor.columns(0, rank);
        column.gemv(-1.0, &done, &done.row(pivot).transpose(), 1.0);
        column /= value.sqrt();
        left.iter_mut().zip(column.iter()).for_each(|(left, value)| *left -= value * value);
        left[pivot] = f64::NEG_INFINITY;
        factor.set_column(rank, &column);
        rank += 1;
    }
    factor.resize_horizontally(rank, 0.0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::samplers::noise::randn;

    fn moments(seed: u64, count: usize, size: usize, batch: usize) -> Moments {
        let values: Vec<f32> = randn(seed, count * size)
            .iter()
            .enumerate()
            .map(|(i, x)| x * (1.0 + (i % size) as f32 / 10.0) + seed as f32)
            .collect();
        let all = Tensor::from_vec(values, (count, size), &Device::Cpu).unwrap();
        let mut moments = Moments::new(size);
        for first in (0..count).step_by(batch) {
            moments.add(&all.narrow(0, first, batch.min(count - first)).unwrap()).unwrap();
        }
        moments
    }

    #[test]
    fn batches_do_not_matter_and_a_set_has_no_distance_to_itself() {
        let (a, b) = (moments(1, 50, 8, 50), moments(2, 40, 8, 40));
        let wanted = distance(&a, &b).unwrap();
        let found = distance(&moments(1, 50, 8, 7), &moments(2, 40, 8, 1)).unwrap();
        assert!((found / wanted - 1.0).abs() < 1e-12 && wanted > 8.0, "{found} {wanted}");
        assert!((distance(&b, &a).unwrap() / wanted - 1.0).abs() < 1e-12);
        assert!(distance(&a, &a).unwrap().abs() < 1e-9);
        // Fewer vectors than values: singular covariances.
        let few = moments(3, 5, 8, 5);
        assert!(distance(&few, &few).unwrap().abs() < 1e-6 && distance(&few, &a).unwrap() > 0.0);
    }

    #[test]
    fn independent_values_have_the_distance_of_their_deviations() {
        // Two values, ±s each in all four combinations: Σ = s² 4/3 · 1.
        let square = |s: f32| {
            let mut moments = Moments::new(2);
            let corners = Tensor::from_slice(&[s, s, s, -s, -s, s, -s, -s], (4, 2), &Device::Cpu).unwrap();
            moments.add(&corners).unwrap();
            moments
        };
        let wanted = 2.0 * 4.0 / 3.0 * (3.0f64 - 1.0).powi(2);
        let found = distance(&square(1.0), &square(3.0)).unwrap();
        assert!((found - wanted).abs() < 1e-12, "{found} is not {wanted}");
        assert!(distance(&moments(1, 1, 2, 1), &square(1.0)).is_err());
    }
}
