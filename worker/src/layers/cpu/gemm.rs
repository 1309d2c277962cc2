//! Matrix products on strided slices: the `gemm` crate behind bounds checks. Single-threaded; callers split the work by
//! rows.

/// A strided matrix in a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    /// The elements, starting at the first of the matrix.
    pub values: &'a [f32],
    /// Distance between adjacent rows in elements.
    pub row_stride: usize,
    /// Distance between adjacent columns in elements.
    pub column_stride: usize,
}

/// `dst ← alpha · a · b`, or `dst ← dst + alpha · a · b` if `accumulate`. `a` is `m × k`, `b` is `k × n`, and `dst` is
/// `m × n` with rows `dst_stride` apart. Panics if a matrix does not fit its slice.
#[expect(unsafe_code, reason = "the gemm crate takes pointers; all elements are checked to lie inside the slices")]
pub(super) fn gemm(
    (m, n, k): (usize, usize, usize),
    dst: &mut [f32],
    dst_stride: usize,
    accumulate: bool,
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(k > 0, "inner dimension of the matrix product is 0");
    let inside = |len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize| {
        (rows - 1)
            .checked_mul(row_stride)
            .zip((columns - 1).checked_mul(column_stride))
            .and_then(|(row, column)| row.checked_add(column))
            .is_some_and(|last| last < len)
    };
    assert!(inside(dst.len(), m, n, dst_stride, 1) && dst_stride >= n, "matrix product would write outside its result");
    assert!(inside(a.values.len(), m, k, a.row_stride, a.column_stride), "left matrix exceeds its slice");
    assert!(inside(b.values.len(), k, n, b.row_stride, b.column_stride), "right matrix exceeds its slice");
    // SAFETY: by the assertions above, the first and last elements of all three matrices lie inside their slices, and
    // strides are not negative. `dst` is borrowed exclusively, so it overlaps neither `a` nor `b`, and its rows do not
    // overlap each other. A stride that is used at all is at most its slice's length, so it fits `isize`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_stride as isize,
            accumulate,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
