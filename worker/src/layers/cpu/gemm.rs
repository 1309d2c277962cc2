//! Matrix products on strided slices: the `gemm` crate behind bounds checks. One thread; callers cut by rows.

/// A matrix inside a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    /// From the first element on.
    pub values: &'a [f32],
    /// Distance between two rows.
    pub row_stride: usize,
    /// Distance between two columns.
    pub column_stride: usize,
}

/// `dst ← alpha · a · b`, or `dst + alpha · a · b` where `accumulate`; `a` is `m × k`, `b` is `k × n`, and `dst` is `m × n` with
/// its rows `dst_stride` apart.
#[expect(unsafe_code, reason = "the gemm crate takes pointers; every element that they reach is checked to be inside")]
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
    assert!(k > 0, "matrix product over nothing");
    let inside = |len: usize, rows: usize, columns: usize, row_stride: usize, column_stride: usize| {
        (rows - 1)
            .checked_mul(row_stride)
            .zip((columns - 1).checked_mul(column_stride))
            .and_then(|(row, column)| row.checked_add(column))
            .is_some_and(|last| last < len)
    };
    assert!(inside(dst.len(), m, n, dst_stride, 1) && dst_stride >= n, "matrix product writes outside of its result");
    assert!(inside(a.values.len(), m, k, a.row_stride, a.column_stride), "left matrix is larger than its slice");
    assert!(inside(b.values.len(), k, n, b.row_stride, b.column_stride), "right matrix is larger than its slice");
    // SAFETY: the assertions above put the first and the last element of all three matrices inside their slices, and
    // strides are not negative. `dst` is exclusively borrowed, so it overlaps neither `a` nor `b`, and its rows do not
    // overlap each other. Strides fit `isize` because they are at most the slice lengths where they are used at all.
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
