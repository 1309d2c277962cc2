//! Matrix products with a weight stored in bf16. Single-threaded; callers split the work by rows.
//!
//! Inputs are rounded to bf16 on the way, sums are f32. Two inputs share one `u32`, the form that the dot product
//! instruction for such pairs (`vdpbf16ps`, AVX-512 BF16) reads: it does twice the products of an f32 instruction.
//! Other processors compute the same in f32; there bf16 saves memory but no time.

#[cfg(target_arch = "x86_64")]
use super::detect;
use super::simd::{self, COLUMNS, ColumnPairs, ROWS, RowPairs, Tile};

/// Rows whose rounded inputs are kept while the weight streams past: they fit a core's cache.
const ROW_BLOCK: usize = 16 * ROWS;

/// Pairs of inputs multiplied before a tile is added to the result, so that a panel of the weight stays in cache.
const PAIR_BLOCK: usize = 576;

/// Length of a packed weight in `u32`.
pub(crate) fn packed_len(inputs: usize, outputs: usize) -> usize {
    outputs.div_ceil(COLUMNS) * COLUMNS * inputs.div_ceil(2)
}

/// Rounds a weight `[outputs, inputs]` to bf16 and lays it out as panels of [`COLUMNS`] outputs,
/// `[panels, pairs of inputs, COLUMNS]`, padded with zeros.
pub(crate) fn pack(weight: &[f32], inputs: usize, outputs: usize) -> Vec<u32> {
    let pairs = inputs.div_ceil(2);
    let mut packed = vec![0u32; packed_len(inputs, outputs)];
    let mut rounded = vec![0u32; pairs];
    for (output, row) in weight.chunks_exact(inputs).enumerate() {
        simd::round_pairs(&mut rounded, row);
        let panel = &mut packed[output / COLUMNS * COLUMNS * pairs..][..COLUMNS * pairs];
        for (columns, &pair) in panel.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(&rounded) {
            columns[output % COLUMNS] = pair;
        }
    }
    packed
}

/// `y ← y + x · wᵀ`, with `y` `[rows, outputs]`, `x` `[rows, inputs]` and `weight` packed by [`pack`].
pub(super) fn add_product(y: &mut [f32], x: &[f32], weight: &[u32], inputs: usize, outputs: usize) {
    assert_eq!(weight.len(), packed_len(inputs, outputs), "packed weight has the wrong length");
    assert_eq!(x.len() / inputs, y.len() / outputs, "inputs and result have different numbers of rows");
    let pairs = inputs.div_ceil(2);
    let mut rounded = vec![0u32; pairs.min(PAIR_BLOCK)];
    let mut block: Vec<RowPairs> = vec![];
    for first in (0..pairs).step_by(PAIR_BLOCK) {
        let here = PAIR_BLOCK.min(pairs - first);
        for (y, x) in y.chunks_mut(ROW_BLOCK * outputs).zip(x.chunks(ROW_BLOCK * inputs)) {
            let tiles = (x.len() / inputs).div_ceil(ROWS);
            block.clear();
            block.resize(tiles * here, [0; ROWS]);
            for (i, row) in x.chunks_exact(inputs).enumerate() {
                let last = inputs.min(2 * (first + here));
                simd::round_pairs(&mut rounded[..here], &row[2 * first..last]);
                for (rows, &pair) in block[i / ROWS * here..][..here].iter_mut().zip(&rounded) {
                    rows[i % ROWS] = pair;
                }
            }
            for (panel, weight) in weight.chunks_exact(COLUMNS * pairs).enumerate() {
                let weight = &weight.as_chunks::<COLUMNS>().0[first..first + here];
                let columns = panel * COLUMNS..outputs.min((panel + 1) * COLUMNS);
                for (y, rows) in y.chunks_mut(ROWS * outputs).zip(block.chunks_exact(here)) {
                    simd::add_tile(y, &tile(rows, weight), columns.clone(), outputs);
                }
            }
        }
    }
}

/// The sum of products of input pairs with weight pairs; both slices have the same length.
#[cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "a function compiled for an instruction set is called after detecting it")
)]
fn tile(rows: &[RowPairs], columns: &[ColumnPairs]) -> Tile {
    #[cfg(target_arch = "x86_64")]
    if detect::avx512_bf16() {
        // SAFETY: every feature that `native` enables was detected.
        return unsafe { native(rows, columns) };
    }
    let mut sums = [[0.0; COLUMNS]; ROWS];
    simd::add_pair_products(&mut sums, rows, columns);
    sums
}

/// [`tile`] on `vdpbf16ps`. `avx512bf16` implies `avx512bw`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[expect(unsafe_code, reason = "arrays are transmuted to vectors of the same size")]
fn native(rows: &[RowPairs], columns: &[ColumnPairs]) -> Tile {
    use std::arch::x86_64::{__m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_setzero_ps};
    use std::mem::transmute;
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (rows, columns) in rows.iter().zip(columns) {
        // SAFETY: 32 values of 32 bits have the size of two 512-bit vectors, in which every bit pattern is valid.
        let [left, right] = unsafe { transmute::<ColumnPairs, [__m512bh; 2]>(*columns) };
        for (sums, &pair) in sums.iter_mut().zip(rows) {
            // SAFETY: as above.
            let pair = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(pair.cast_signed())) };
            *sums = [_mm512_dpbf16_ps(sums[0], pair, left), _mm512_dpbf16_ps(sums[1], pair, right)];
        }
    }
    // SAFETY: as above.
    unsafe { transmute::<[[__m512; 2]; ROWS], Tile>(sums) }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect()
    }

    fn rounded(x: f32) -> f64 {
        f64::from(bf16::from_f32(x).to_f32())
    }

    #[test]
    fn the_sum_of_rounded_products_at_odd_sizes_and_over_several_blocks() {
        for (rows, inputs, outputs) in [(1, 1, 1), (12, 2, 32), (13, 3, 33), (200, 65, 70), (5, 1201, 31)] {
            let (x, weight) = (values(rows * inputs, 1), values(outputs * inputs, 2));
            let before = values(rows * outputs, 3);
            let mut y = before.clone();
            add_product(&mut y, &x, &pack(&weight, inputs, outputs), inputs, outputs);
            for (i, (&y, &before)) in y.iter().zip(&before).enumerate() {
                let (x, w) = (&x[i / outputs * inputs..][..inputs], &weight[i % outputs * inputs..][..inputs]);
                let products = || x.iter().zip(w).map(|(&x, &w)| rounded(x) * rounded(w));
                let (sum, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
                let error = (f64::from(y) - f64::from(before) - sum).abs() / (1.0 + size);
                assert!(error < 3e-6, "{error:e} at {i} of {rows} × {inputs} × {outputs}");
            }
        }
    }

    #[test]
    fn the_portable_tile_is_the_processors() {
        let pairs = |count: usize, seed| {
            let mut pairs = vec![0; count];
            simd::round_pairs(&mut pairs, &values(2 * count, seed));
            pairs
        };
        let (rows, columns) = (pairs(40 * ROWS, 4), pairs(40 * COLUMNS, 5));
        let (rows, columns) = (rows.as_chunks().0, columns.as_chunks().0);
        let mut portable = [[0.0; COLUMNS]; ROWS];
        simd::add_pair_products(&mut portable, rows, columns);
        let native = tile(rows, columns);
        let largest = portable.as_flattened().iter().zip(native.as_flattened());
        let largest = largest.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(largest < 1e-4, "{largest:e}");
    }

    #[test]
    fn rounding_is_to_nearest_even_and_keeps_what_is_not_finite() {
        let mut x = values(999, 6);
        x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0, -0.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1e-40]);
        let mut pairs = vec![0; x.len().div_ceil(2)];
        simd::round_pairs(&mut pairs, &x);
        let found: Vec<u16> = pairs.iter().flat_map(|&pair| [pair as u16, (pair >> 16) as u16]).collect();
        let expected: Vec<u16> = x.iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
        assert_eq!(found[..x.len()], expected);
        for nan in [0x7f80_0001, 0x7fff_ffff, 0xffff_ffff].map(f32::from_bits) {
            let mut pair = [0];
            simd::round_pairs(&mut pair, &[nan]);
            assert!(bf16::from_bits(pair[0] as u16).is_nan(), "{pair:x?}");
        }
    }
}
