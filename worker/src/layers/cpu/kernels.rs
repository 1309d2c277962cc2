//! One function per fused layer: splits the work by rows, runs it on rayon's threads and calls the row kernels.

use rayon::prelude::*;

use super::bf16;
use super::gemm::{Matrix, gemm};
use super::rows::{BatchRows, TokenRows};
use super::simd;
use crate::layers::function::Activation;

/// Rows of a matrix product per task: enough to be fast, few enough to stay in cache.
const ROW_BLOCK: usize = 256;

/// Fewest rows per task when work is split by the number of threads. Below 65 rows the `gemm` crate adds up long sums
/// in another order, so results would depend on the number of threads.
const FEWEST_ROWS: usize = 128;

/// Largest weight matrix, in values, that can be repacked for every block of rows at negligible cost: a core's cache.
const SMALL_WEIGHT: usize = 1 << 18;

/// Values per task of a pointwise function: they stay in cache between the copy and the function.
const VALUE_BLOCK: usize = 1 << 14;

/// Most query rows per attention task, which holds their scores. Each task repacks the keys: costly with few rows.
const QUERY_BLOCK: usize = 256;

/// Output pixels unfolded per convolution task, rounded up to whole rows.
const PIXEL_BLOCK: usize = 256;

/// Tokens per task of a token-wise function.
const TOKEN_BLOCK: usize = 64;

fn activate(values: &mut [f32], activation: Activation) {
    match activation {
        Activation::Identity => {}
        Activation::Relu => values.iter_mut().for_each(|x| *x = x.max(0.0)),
        Activation::Silu => simd::sigmoid_gate(values, 1.0),
        Activation::QuickGelu => simd::sigmoid_gate(values, 1.702),
        Activation::GeluTanh => simd::gelu_tanh(values),
        Activation::GeluErf => values.iter_mut().for_each(|x| {
            let v = f64::from(*x);
            *x = (0.5 * v * (1.0 + candle_core::cpu::erf::erf_f64(v * std::f64::consts::FRAC_1_SQRT_2))) as f32;
        }),
    }
}

/// `act(x)`.
pub(crate) fn activation(x: &[f32], activation: Activation) -> Vec<f32> {
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(VALUE_BLOCK).zip(x.par_chunks(VALUE_BLOCK)).for_each(|(y, x)| {
        y.copy_from_slice(x);
        activate(y, activation);
    });
    y
}

/// `act(x · w + b)`, with `x` `[rows, inputs]` and `w` `[inputs, outputs]`.
pub(crate) fn linear(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    inputs: usize,
    outputs: usize,
    activation: Activation,
) -> Vec<f32> {
    let rows = x.len() / inputs;
    let block = row_block(rows, weight.len(), rayon::current_num_threads());
    // Each row starts as the bias; the product is added to it.
    let mut y = bias.repeat(rows);
    y.par_chunks_mut(block * outputs).zip(x.par_chunks(block * inputs)).for_each(|(y, x)| {
        let a = Matrix { values: x, row_stride: inputs, column_stride: 1 };
        let b = Matrix { values: weight, row_stride: outputs, column_stride: 1 };
        gemm((x.len() / inputs, outputs, inputs), y, outputs, true, 1.0, a, b);
        activate(y, activation);
    });
    y
}

/// [`linear`] with a weight packed by [`super::pack`].
pub(crate) fn linear_rounded(
    x: &[f32],
    weight: &[u32],
    bias: &[f32],
    inputs: usize,
    activation: Activation,
) -> Vec<f32> {
    let (rows, outputs) = (x.len() / inputs, bias.len());
    let block = rows.div_ceil(rayon::current_num_threads()).max(1);
    let mut y = bias.repeat(rows);
    y.par_chunks_mut(block * outputs).zip(x.par_chunks(block * inputs)).for_each(|(y, x)| {
        bf16::add_product(y, x, weight, inputs, outputs);
        activate(y, activation);
    });
    y
}

/// Rows per task of a matrix product. Each task packs the weight, so a large weight gets one task per thread.
fn row_block(rows: usize, weight: usize, threads: usize) -> usize {
    if weight <= SMALL_WEIGHT { ROW_BLOCK } else { rows.div_ceil(threads.min(rows / FEWEST_ROWS).max(1)) }
}

/// Attention of all heads; see `layers::attention`, which checks the shapes. `key_bias` has a row for each batch.
pub(crate) fn attention(
    q: &TokenRows<'_>,
    k: &TokenRows<'_>,
    v: &TokenRows<'_>,
    heads: usize,
    factor: f32,
    key_bias: Option<&[Vec<f32>]>,
) -> Vec<f32> {
    let (width, d, keys) = (q.width, q.width / heads, k.tokens);
    let mut y = vec![0f32; q.batch * q.tokens * width];
    let task = |batch: usize, first: usize, y: &mut [f32], scores: &mut Vec<f32>| {
        let rows = y.len() / width;
        scores.resize(rows * keys, 0.0);
        let at =
            |x: &TokenRows<'_>, token: usize, head: usize| x.batch_stride * batch + x.token_stride * token + head * d;
        for head in 0..heads {
            let queries =
                Matrix { values: &q.values[at(q, first, head)..], row_stride: q.token_stride, column_stride: 1 };
            let keys_t = Matrix { values: &k.values[at(k, 0, head)..], row_stride: 1, column_stride: k.token_stride };
            gemm((rows, keys, d), scores, keys, false, factor, queries, keys_t);
            let mut inverses = [0f32; QUERY_BLOCK];
            for (row, inverse) in scores.chunks_exact_mut(keys).zip(&mut inverses) {
                if let Some(bias) = key_bias {
                    simd::add(row, &bias[batch]);
                }
                *inverse = simd::softmax_unscaled(row);
            }
            let weights = Matrix { values: scores, row_stride: keys, column_stride: 1 };
            let values = Matrix { values: &v.values[at(v, 0, head)..], row_stride: v.token_stride, column_stride: 1 };
            gemm((rows, d, keys), &mut y[head * d..], width, false, 1.0, weights, values);
            for (row, inverse) in y.chunks_exact_mut(width).zip(inverses) {
                simd::scale(&mut row[head * d..][..d], inverse);
            }
        }
    };
    let block = query_block(q.tokens, q.batch, rayon::current_num_threads());
    y.par_chunks_mut(q.tokens * width).enumerate().for_each(|(batch, y)| {
        y.par_chunks_mut(block * width)
            .enumerate()
            .for_each_init(Vec::new, |scores, (i, y)| task(batch, i * block, y, scores));
    });
    y
}

/// Query rows per attention task: few enough to give all threads work, and at most [`QUERY_BLOCK`].
fn query_block(tokens: usize, batch: usize, threads: usize) -> usize {
    let tasks = threads.div_ceil(batch).min(tokens / FEWEST_ROWS).max(tokens.div_ceil(QUERY_BLOCK));
    tokens.div_ceil(tasks)
}

/// Adaptive layer norm of `x` `[b, tokens, width]`; see `layers::layer_norm_modulated`.
pub(crate) fn layer_norm_modulated(
    x: &[f32],
    shift: &BatchRows<'_>,
    scale: &BatchRows<'_>,
    tokens: usize,
    width: usize,
    eps: f32,
) -> Vec<f32> {
    by_token(x.len(), width, |token, y| {
        let batch = token / tokens;
        simd::norm_modulated(y, &x[token * width..][..width], shift.row(batch), scale.row(batch), eps);
    })
}

/// `x + gate · y`; see `layers::gated_add`.
pub(crate) fn gated_add(x: &[f32], y: &[f32], gate: &BatchRows<'_>, tokens: usize, width: usize) -> Vec<f32> {
    by_token(x.len(), width, |token, sum| {
        let values = token * width..(token + 1) * width;
        simd::gated_add(sum, &x[values.clone()], gate.row(token / tokens), &y[values]);
    })
}

/// Rotates pairs of values of `x` `[b, tokens, width]`; see `layers::rotate`.
pub(crate) fn rotate(x: &[f32], cos: &[f32], sin: &[f32], tokens: usize, width: usize) -> Vec<f32> {
    let pairs = cos.len() / tokens;
    by_token(x.len(), width, |token, y| {
        let angles = token % tokens * pairs..(token % tokens + 1) * pairs;
        let (cos, sin) = (&cos[angles.clone()], &sin[angles]);
        let heads = y.chunks_exact_mut(2 * pairs).zip(x[token * width..][..width].chunks_exact(2 * pairs));
        for (y, x) in heads {
            let turned = y.as_chunks_mut::<2>().0.iter_mut().zip(x.as_chunks::<2>().0).zip(cos.iter().zip(sin));
            for ((y, &[a, b]), (cos, sin)) in turned {
                *y = [a * cos - b * sin, b * cos + a * sin];
            }
        }
    })
}

/// A tensor of `length` values; `fill` writes the `width` values of each token.
fn by_token(length: usize, width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    let mut y = vec![0f32; length];
    y.par_chunks_mut(TOKEN_BLOCK * width).enumerate().for_each(|(block, y)| {
        for (i, row) in y.chunks_exact_mut(width).enumerate() {
            fill(block * TOKEN_BLOCK + i, row);
        }
    });
    y
}

/// Group norm over planes of `plane` values, `per_group` planes per group, followed by SiLU if `silu`. `weight` and
/// `bias` have one value per channel.
pub(crate) fn group_norm(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    per_group: usize,
    plane: usize,
    eps: f32,
    silu: bool,
) -> Vec<f32> {
    let mut y = x.to_vec();
    let groups = weight.len() / per_group;
    y.par_chunks_mut(per_group * plane).enumerate().for_each(|(i, planes)| {
        let channels = i % groups * per_group..(i % groups + 1) * per_group;
        simd::group_norm(planes, &weight[channels.clone()], &bias[channels], eps, silu);
    });
    y
}

/// Sizes of a convolution that keeps height and width.
pub(crate) struct ConvShape {
    /// Input channels.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// Rows of the image.
    pub height: usize,
    /// Columns of the image.
    pub width: usize,
    /// Side of the kernel; odd.
    pub kernel: usize,
}

/// Convolves `[b, inputs, h, w]` with zero padding: each block of image rows is unfolded into a matrix that fits the
/// cache, then multiplied.
pub(crate) fn conv_same(x: &[f32], weight: &[f32], bias: &[f32], shape: &ConvShape) -> Vec<f32> {
    let &ConvShape { inputs, outputs, height, width, kernel } = shape;
    let (plane, taps) = (height * width, inputs * kernel * kernel);
    let rows = PIXEL_BLOCK.div_ceil(width).min(height);
    let batch = x.len() / (inputs * plane);
    let mut y = vec![0f32; batch * outputs * plane];
    // One task per image and block of rows; it owns that block of every output plane.
    let blocks = height.div_ceil(rows);
    let mut tasks: Vec<Vec<&mut [f32]>> = (0..batch * blocks).map(|_| Vec::with_capacity(outputs)).collect();
    for (i, out_plane) in y.chunks_exact_mut(plane).enumerate() {
        for (block, part) in out_plane.chunks_mut(rows * width).enumerate() {
            tasks[i / outputs * blocks + block].push(part);
        }
    }
    tasks.into_par_iter().enumerate().for_each_init(
        || (Vec::new(), Vec::new()),
        |(unfolded, result): &mut (Vec<f32>, Vec<f32>), (i, parts)| {
            let (picture, first) = (&x[i / blocks * inputs * plane..][..inputs * plane], i % blocks * rows);
            let here = rows.min(height - first);
            let pixels = here * width;
            unfolded.resize(taps * pixels, 0.0);
            result.resize(outputs * pixels, 0.0);
            unfold(picture, unfolded, shape, first, here);
            let a = Matrix { values: weight, row_stride: taps, column_stride: 1 };
            let b = Matrix { values: unfolded, row_stride: pixels, column_stride: 1 };
            gemm((outputs, pixels, taps), result, pixels, false, 1.0, a, b);
            for ((part, row), &bias) in parts.into_iter().zip(result.chunks_exact(pixels)).zip(bias) {
                simd::add_value(part, row, bias);
            }
        },
    );
    y
}

/// Writes rows `first..first + rows` of the image, shifted by each kernel tap, for each input channel.
fn unfold(picture: &[f32], unfolded: &mut [f32], shape: &ConvShape, first: usize, rows: usize) {
    let &ConvShape { height, width, kernel, .. } = shape;
    let half = kernel / 2;
    for (tap, block) in unfolded.chunks_exact_mut(rows * width).enumerate() {
        let (channel, ky, kx) = (tap / (kernel * kernel), tap / kernel % kernel, tap % kernel);
        let plane = &picture[channel * height * width..][..height * width];
        // Column x of the output reads column x + kx - half of the input.
        let left = half.saturating_sub(kx).min(width);
        let from = kx.saturating_sub(half).min(width);
        let length = width - left.max(from);
        for (row, line) in block.chunks_exact_mut(width).enumerate() {
            match (first + row + ky).checked_sub(half).filter(|&y| y < height) {
                None => line.fill(0.0),
                Some(y) => {
                    line[..left].fill(0.0);
                    line[left..left + length].copy_from_slice(&plane[y * width + from..][..length]);
                    line[left + length..].fill(0.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_gives_the_same_bits_on_any_number_of_threads() {
        let blocks = [(1024, 2, 1), (1024, 1, 16), (100, 1, 16), (1, 3, 2)].map(|(t, b, n)| query_block(t, b, n));
        assert_eq!(blocks, [256, 128, 100, 1]);
        let (tokens, width) = (601, 48);
        let values: Vec<f32> = (0..tokens * width).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let rows = TokenRows { values: &values, token_stride: width, batch_stride: 0, tokens, batch: 1, width };
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| attention(&rows, &rows, &rows, 2, 0.2, None))
        };
        assert!(on(1) == on(3) && on(1) == on(16));
    }

    #[test]
    fn a_large_weight_is_packed_once_a_thread_and_gives_the_same_bits_on_any_number_of_them() {
        assert_eq!(row_block(1024, 100, 2), ROW_BLOCK);
        assert_eq!([1, 2, 3, 99].map(|threads| row_block(1024, SMALL_WEIGHT + 1, threads)), [1024, 512, 342, 128]);
        assert_eq!([1, 127, 300].map(|rows| row_block(rows, SMALL_WEIGHT + 1, 3)), [1, 127, 150]);
        // The sums have more terms than the product takes at once.
        let (rows, inputs, outputs) = (601, 650, 130);
        let value = |i: usize| ((i * 7919) % 1000) as f32 / 500.0 - 1.0;
        let x: Vec<f32> = (0..rows * inputs).map(value).collect();
        let weight: Vec<f32> = (0..inputs * outputs).map(|i| value(3 * i + 1)).collect();
        let product = |block: usize| {
            let mut y = vec![0f32; rows * outputs];
            for (y, x) in y.chunks_mut(block * outputs).zip(x.chunks(block * inputs)) {
                let a = Matrix { values: x, row_stride: inputs, column_stride: 1 };
                let b = Matrix { values: &weight, row_stride: outputs, column_stride: 1 };
                gemm((x.len() / inputs, outputs, inputs), y, outputs, true, 1.0, a, b);
            }
            y
        };
        let block = |threads| row_block(rows, SMALL_WEIGHT + 1, threads);
        assert!(product(block(1)) == product(block(2)) && product(block(1)) == product(block(99)));
    }
}
