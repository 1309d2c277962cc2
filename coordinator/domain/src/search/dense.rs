//! Dense symmetric positive definite linear systems.

/// Solves `A x = b` for a symmetric positive definite `A` (row-major, `b.len()` squared; only the lower triangle is
/// read) by Cholesky decomposition. `None` if `A` is not positive definite.
pub(super) fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for j in 0..n {
        let (done, rest) = a.split_at_mut((j + 1) * n);
        let pivot_row = &mut done[j * n..];
        let pivot = pivot_row[j] - dot(&pivot_row[..j], &pivot_row[..j]);
        if !(pivot > 0.0 && pivot.is_finite()) {
            return None;
        }
        let root = pivot.sqrt();
        pivot_row[j] = root;
        for row in rest.chunks_exact_mut(n) {
            row[j] = (row[j] - dot(&row[..j], &pivot_row[..j])) / root;
        }
    }
    for i in 0..n {
        b[i] = (b[i] - dot(&a[i * n..i * n + i], &b[..i])) / a[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] /= a[i * n + i];
        for j in 0..i {
            b[j] -= a[i * n + j] * b[i];
        }
    }
    Some(b)
}

/// The Cholesky factor of a symmetric positive definite matrix that grows one row at a time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Factor {
    /// Rows of the lower triangle, concatenated.
    rows: Vec<f64>,
    len: usize,
}

impl Factor {
    fn row(&self, i: usize) -> &[f64] {
        let start = i * (i + 1) / 2;
        &self.rows[start..start + i + 1]
    }

    /// The factor of the identity matrix times `scale`, which is positive.
    pub(super) fn scaled_identity(n: usize, scale: f64) -> Self {
        let mut factor = Self::default();
        for i in 0..n {
            let mut row = vec![0.0; i + 1];
            row[i] = scale;
            factor.push(row);
        }
        factor
    }

    /// Appends the next row of the matrix, up to its diagonal. Returns `false` and skips the row if the matrix would
    /// not be positive definite.
    pub(super) fn push(&mut self, mut row: Vec<f64>) -> bool {
        let n = self.len;
        for j in 0..n {
            let before = self.row(j);
            row[j] = (row[j] - dot(&row[..j], &before[..j])) / before[j];
        }
        let pivot = row[n] - dot(&row[..n], &row[..n]);
        if !(pivot > 1e-12 * row[n].abs() && pivot.is_finite()) {
            return false;
        }
        row[n] = pivot.sqrt();
        self.rows.extend(row);
        self.len += 1;
        true
    }

    /// Solves `A x = b`.
    pub(super) fn solve(&self, mut b: Vec<f64>) -> Vec<f64> {
        for i in 0..self.len {
            let row = self.row(i);
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
        }
        for i in (0..self.len).rev() {
            let row = self.row(i);
            b[i] /= row[i];
            let x = b[i];
            b[..i].iter_mut().zip(row).for_each(|(b, l)| *b -= l * x);
        }
        b
    }

    /// `−½ (ln det A + bᵀ A⁻¹ b)`: the log likelihood of `b`, up to a constant.
    pub(super) fn likelihood(&self, mut b: Vec<f64>) -> f64 {
        let mut sum = 0.0;
        for i in 0..self.len {
            let row = self.row(i);
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
            sum += 0.5 * b[i] * b[i] + row[i].ln();
        }
        -sum
    }
}

/// Adds `weight · x xᵀ` to the lower triangle of a row-major square matrix.
pub(super) fn add_outer(a: &mut [f64], x: &[f64], weight: f64) {
    for (i, row) in a.chunks_exact_mut(x.len()).enumerate() {
        let scaled = weight * x[i];
        if scaled != 0.0 {
            row[..=i].iter_mut().zip(x).for_each(|(a, x)| *a += scaled * x);
        }
    }
}

/// The dot product, summed in four lanes so that the compiler can vectorize it.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let tail: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a4.zip(b4) {
        for i in 0..4 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positive_definite_systems_are_solved_and_others_refused() {
        let a = vec![4.0, 0.0, 0.0, 2.0, 5.0, 0.0, 1.0, 3.0, 6.0];
        let x = solve(a, vec![11.0, 21.0, 25.0]).unwrap();
        for (x, wanted) in x.iter().zip([1.0, 2.0, 3.0]) {
            assert!((x - wanted).abs() < 1e-12);
        }
        assert_eq!(solve(vec![1.0, 0.0, 2.0, 1.0], vec![1.0, 1.0]), None);
        let mut factor = Factor::default();
        for row in [vec![4.0], vec![2.0, 5.0], vec![1.0, 3.0, 6.0]] {
            assert!(factor.push(row));
        }
        assert!(!factor.push(vec![4.0, 2.0, 1.0, 4.0]));
        for (x, wanted) in factor.solve(vec![11.0, 21.0, 25.0]).iter().zip([1.0, 2.0, 3.0]) {
            assert!((x - wanted).abs() < 1e-12);
        }
        let likelihood = factor.likelihood(vec![11.0, 21.0, 25.0]);
        assert!((likelihood + 0.5 * (128.0 + 67f64.ln())).abs() < 1e-9, "{likelihood}");
        let mut outer = vec![0.0; 4];
        add_outer(&mut outer, &[2.0, 3.0], 0.5);
        assert_eq!(outer, [2.0, 0.0, 3.0, 4.5]);
        assert!((dot(&[1.0; 7], &[2.0; 7]) - 14.0).abs() < 1e-12);
    }
}
