//! Row kernels compiled for several instruction sets; the best one is chosen at run time.
//!
//! The bodies are plain loops that the compiler vectorizes. Sums run in a fixed number of lanes, so results are the
//! same on every run on one machine. `exp` is a polynomial with a relative error below 2e-7.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::detect::{avx2, avx512};

/// Lanes of a sum: a multiple of every vector width, and few enough to stay in registers.
const LANES: usize = 16;

/// Rows of a tile of a bf16 matrix product. Each row is two vectors of 16 sums, so a tile takes 24 of the 32 AVX-512
/// registers and leaves the others for weights and inputs.
pub(super) const ROWS: usize = 12;

/// Columns of a tile.
pub(super) const COLUMNS: usize = 32;

/// One pair of bf16 inputs for each row of a tile.
pub(super) type RowPairs = [u32; ROWS];

/// One pair of bf16 weights for each column of a tile.
pub(super) type ColumnPairs = [u32; COLUMNS];

/// The sums of a tile.
pub(super) type Tile = [[f32; COLUMNS]; ROWS];

/// Defines `$name`, which runs the body compiled for the best instruction set of this processor.
macro_rules! dispatch {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        #[cfg_attr(
            target_arch = "x86_64",
            expect(unsafe_code, reason = "a function compiled for an instruction set is called after detecting it")
        )]
        pub(super) fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn body($($arg: $type),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide($($arg: $type),*) $(-> $out)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn narrow($($arg: $type),*) $(-> $out)? { body($($arg),*) }
                if avx512() {
                    // SAFETY: every feature that `wide` enables was detected.
                    return unsafe { wide($($arg),*) };
                }
                if avx2() {
                    // SAFETY: every feature that `narrow` enables was detected.
                    return unsafe { narrow($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

/// `e^x` for finite `x`; saturates below -87 and above 88.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Cephes' expf: x = n·ln 2 + r, a polynomial for e^r, n added to the exponent. Adding 1.5·2²³ rounds to an integer
    // and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_145_75, x);
    let r = n.mul_add(-1.428_606_8e-6, r);
    let p = 1.987_569_1e-4f32
        .mul_add(r, 1.398_199_9e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    let e = p.mul_add(r * r, r) + 1.0;
    e * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// Combines the lanes in pairs, always in the same order.
#[inline(always)]
fn reduce(lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let (mut eight, mut four) = ([0f32; 8], [0f32; 4]);
    for i in 0..8 {
        eight[i] = combine(lanes[i], lanes[i + 8]);
    }
    for i in 0..4 {
        four[i] = combine(eight[i], eight[i + 4]);
    }
    combine(combine(four[0], four[2]), combine(four[1], four[3]))
}

/// The sum of `term` over a row.
#[inline(always)]
fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += term(chunk[i]);
        }
    }
    let mut total = reduce(lanes, |a, b| a + b);
    for &x in rest {
        total += term(x);
    }
    total
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn mean_and_inverse_deviation(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = sum(row, |x| x) / n;
    let variance = sum(row, |x| (x - mean) * (x - mean)) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

dispatch! {
    /// GELU in its tanh form, in place: `x · sigmoid(2u)` with `u = √(2/π) (x + 0.044715 x³)`.
    fn gelu_tanh(values: &mut [f32]) {
        for x in values {
            let u = 1.595_769_2 * *x * (0.044_715 * *x).mul_add(*x, 1.0);
            *x /= 1.0 + exp(-u);
        }
    }
}

dispatch! {
    /// `x · sigmoid(slope · x)`, in place.
    fn sigmoid_gate(values: &mut [f32], slope: f32) {
        for x in values {
            *x /= 1.0 + exp(-slope * *x);
        }
    }
}

dispatch! {
    /// `values ← values + other`, elementwise; both have the same length.
    fn add(values: &mut [f32], other: &[f32]) {
        let n = values.len();
        let other = &other[..n];
        for i in 0..n {
            values[i] += other[i];
        }
    }
}

dispatch! {
    /// Replaces each score by `e^(score - maximum)` and returns the reciprocal of their sum.
    fn softmax_unscaled(row: &mut [f32]) -> f32 {
        // The remainder is padded to whole lanes: the padding is never the maximum, and its e^-87 does not change a sum
        // that contains e^0.
        let (chunks, rest) = row.as_chunks_mut::<LANES>();
        let mut tail = [f32::MIN; LANES];
        tail[..rest.len()].copy_from_slice(rest);
        let mut lanes = tail;
        for chunk in chunks.iter() {
            for i in 0..LANES {
                lanes[i] = larger(chunk[i], lanes[i]);
            }
        }
        let maximum = reduce(lanes, larger);
        let mut lanes = [0f32; LANES];
        for chunk in chunks {
            for i in 0..LANES {
                chunk[i] = exp(chunk[i] - maximum);
                lanes[i] += chunk[i];
            }
        }
        if !rest.is_empty() {
            for i in 0..LANES {
                tail[i] = exp(tail[i] - maximum);
                lanes[i] += tail[i];
            }
            rest.copy_from_slice(&tail[..rest.len()]);
        }
        1.0 / reduce(lanes, |a, b| a + b)
    }
}

dispatch! {
    /// Multiplies a row by a factor.
    fn scale(row: &mut [f32], factor: f32) {
        for x in row {
            *x *= factor;
        }
    }
}

dispatch! {
    /// `dst ← (x - mean) / deviation · (1 + scale) + shift` for one row; all have the same length.
    fn norm_modulated(dst: &mut [f32], x: &[f32], shift: &[f32], scale: &[f32], eps: f32) {
        let n = dst.len();
        let (x, shift, scale) = (&x[..n], &shift[..n], &scale[..n]);
        let (mean, inverse) = mean_and_inverse_deviation(x, eps);
        for i in 0..n {
            dst[i] = ((x[i] - mean) * inverse).mul_add(1.0 + scale[i], shift[i]);
        }
    }
}

dispatch! {
    /// `dst ← x + gate · y` for one row; all have the same length.
    fn gated_add(dst: &mut [f32], x: &[f32], gate: &[f32], y: &[f32]) {
        let n = dst.len();
        let (x, gate, y) = (&x[..n], &gate[..n], &y[..n]);
        for i in 0..n {
            dst[i] = gate[i].mul_add(y[i], x[i]);
        }
    }
}

dispatch! {
    /// `dst ← x + value`; both have the same length.
    fn add_value(dst: &mut [f32], x: &[f32], value: f32) {
        let n = dst.len();
        let x = &x[..n];
        for i in 0..n {
            dst[i] = x[i] + value;
        }
    }
}

/// The bits of `x` rounded to bf16, to nearest with ties to even. NaN stays NaN.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { bits >> 16 | 0x40 } else { rounded }
}

dispatch! {
    /// Rounds values to bf16 in pairs, the first of each in the lower half. An odd last value is paired with zero.
    fn round_pairs(pairs: &mut [u32], values: &[f32]) {
        let (whole, odd) = values.as_chunks::<2>();
        for (pair, &[first, second]) in pairs.iter_mut().zip(whole) {
            *pair = round(first) | round(second) << 16;
        }
        if let [last] = odd {
            pairs[whole.len()] = round(*last);
        }
    }
}

dispatch! {
    /// Adds the products of pairs of bf16 to a tile: `vdpbf16ps` for processors without it.
    fn add_pair_products(sums: &mut Tile, rows: &[RowPairs], columns: &[ColumnPairs]) {
        let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)];
        for (rows, columns) in rows.iter().zip(columns) {
            for i in 0..ROWS {
                let [a, b] = halves(rows[i]);
                for j in 0..COLUMNS {
                    let [c, d] = halves(columns[j]);
                    sums[i][j] = b.mul_add(d, a.mul_add(c, sums[i][j]));
                }
            }
        }
    }
}

dispatch! {
    /// Adds a tile to the given columns of `y`, whose rows have `width` values.
    fn add_tile(y: &mut [f32], tile: &Tile, columns: Range<usize>, width: usize) {
        for (y, sums) in y.chunks_exact_mut(width).zip(tile) {
            let y = &mut y[columns.clone()];
            if let Ok(y) = <&mut [f32; COLUMNS]>::try_from(&mut *y) {
                for i in 0..COLUMNS {
                    y[i] += sums[i];
                }
            } else {
                for (y, sum) in y.iter_mut().zip(sums) {
                    *y += sum;
                }
            }
        }
    }
}

dispatch! {
    /// Group norm of one group of planes, in place, followed by SiLU if `silu`.
    fn group_norm(planes: &mut [f32], weight: &[f32], bias: &[f32], eps: f32, silu: bool) {
        let size = planes.len() / weight.len();
        let (mean, inverse) = mean_and_inverse_deviation(planes, eps);
        for channel in 0..weight.len() {
            let factor = inverse * weight[channel];
            let offset = bias[channel] - mean * factor;
            let plane = &mut planes[channel * size..][..size];
            for x in &mut *plane {
                *x = x.mul_add(factor, offset);
            }
            if silu {
                for x in plane {
                    *x /= 1.0 + exp(-*x);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_two_in_ten_million_and_finite_everywhere() {
        let worst = (-8700..8700)
            .map(|i| i as f32 / 100.0)
            .map(|x| (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs())
            .fold(0.0, f64::max);
        assert!(worst < 2e-7, "{worst:e}");
        assert!(exp(1e30).is_finite() && exp(-1e30) >= 0.0);
    }

    #[test]
    fn a_nan_stays_visible() {
        let mut row = [0.5, f32::NAN, 1.0];
        let inverse = softmax_unscaled(&mut row);
        assert!((row[1] * inverse).is_nan());
        let mut row = [f32::NAN];
        gelu_tanh(&mut row);
        assert!(row[0].is_nan());
    }
    /// What every kernel gives for the same inputs, of a length that leaves a remainder.
    #[cfg(target_arch = "x86_64")]
    fn every_kernel() -> Vec<f32> {
        let row = |seed: usize| -> Vec<f32> {
            (0..5 * LANES + 3).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 500.0 - 2.0).collect()
        };
        let mut all = vec![];
        let mut in_place = |kernel: &dyn Fn(&mut [f32])| {
            let mut values = row(1);
            kernel(&mut values);
            all.extend(values);
        };
        in_place(&gelu_tanh);
        in_place(&|values| sigmoid_gate(values, 1.702));
        in_place(&|values| add(values, &row(2)));
        in_place(&|values| {
            let inverse = softmax_unscaled(values);
            scale(values, inverse);
        });
        in_place(&|values| norm_modulated(values, &row(3), &row(4), &row(5), 1e-6));
        in_place(&|values| gated_add(values, &row(3), &row(4), &row(5)));
        in_place(&|values| add_value(values, &row(3), 0.25));
        in_place(&|values| group_norm(values, &[0.5], &[0.1], 1e-6, true));
        let mut pairs = vec![0; (ROWS + COLUMNS) * 7];
        let values: Vec<f32> = (0..2 * pairs.len()).map(|i| (i % 97) as f32 / 48.0 - 1.0).collect();
        round_pairs(&mut pairs, &values);
        let (rows, columns) = pairs.split_at(ROWS * 7);
        let mut tile = [[0.0; COLUMNS]; ROWS];
        add_pair_products(&mut tile, rows.as_chunks().0, columns.as_chunks().0);
        let mut product = vec![1.0; ROWS * 70];
        add_tile(&mut product, &tile, 0..COLUMNS, 70);
        add_tile(&mut product, &tile, 64..70, 70);
        all.extend(product);
        all
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_kernels_for_lesser_processors_agree() {
        use super::super::detect::{Level, at_most};
        let here = every_kernel();
        assert!(here.iter().all(|x| x.is_finite()));
        for level in [Level::Baseline, Level::Avx2, Level::Avx512] {
            let there = at_most(level, every_kernel);
            let worst = here.iter().zip(&there).map(|(a, b)| (a - b).abs() / (1.0 + a.abs())).fold(0f32, f32::max);
            assert!(here.len() == there.len() && worst < 2e-6, "{level:?}: {worst:e}");
        }
    }
}
