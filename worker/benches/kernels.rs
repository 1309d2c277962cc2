//! Compares each fused kernel with candle's own operations, at the sizes of one PixArt-α block at 512² (1024 tokens of
//! 16 heads × 72 channels, with guidance) and of the levels of a decoder.
//!
//! Run with `cargo bench -p evocache-worker --bench kernels [-- NAME]`. RAYON_NUM_THREADS and CANDLE_NUM_THREADS set
//! the number of threads.

#![expect(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark fails by panicking; criterion's macros write no docs"
)]

use candle_core::{D, DType, Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use evocache_worker::files::weights::Weights;
use evocache_worker::layers::{
    Activation, AttentionBias, Conv2d, GroupNorm, Linear, attention, gated_add, layer_norm_modulated, rotate,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WIDTH: usize = 1152;
const HEADS: usize = 16;
const TOKENS: usize = 1024;

fn random(shape: &[usize]) -> Tensor {
    Tensor::rand(-1f32, 1.0, shape, &Device::Cpu).unwrap()
}

/// A benchmark group that times the kernel and candle's operations.
fn pair(
    criterion: &mut Criterion,
    name: &str,
    fused: impl Fn() -> candle_core::Result<Tensor>,
    plain: impl Fn() -> candle_core::Result<Tensor>,
) {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    group.bench_function("fused", |b| b.iter(|| fused().unwrap()));
    group.bench_function("candle", |b| b.iter(|| plain().unwrap()));
    group.finish();
}

fn linear(criterion: &mut Criterion) {
    let x = random(&[2, TOKENS, WIDTH]);
    for (name, dtype, activation) in [
        ("linear", DType::F32, Activation::Identity),
        ("linear + gelu", DType::F32, Activation::GeluTanh),
        ("linear in bf16", DType::BF16, Activation::Identity),
    ] {
        let weights = Weights::random(&Device::Cpu).with_dtype(dtype);
        let layer = Linear::load(&weights.root(), WIDTH, 4 * WIDTH, true).unwrap();
        let (weight, bias) = (random(&[WIDTH, 4 * WIDTH]), random(&[4 * WIDTH]));
        pair(
            criterion,
            name,
            || layer.forward_with(&x, activation),
            || {
                let y = x.reshape(((), WIDTH))?.matmul(&weight)?.broadcast_add(&bias)?;
                if activation == Activation::Identity { Ok(y) } else { y.gelu() }
            },
        );
    }
}

fn attend(criterion: &mut Criterion) {
    let scale = 1.0 / (72f64).sqrt();
    let q = random(&[2, TOKENS, WIDTH]);
    for (name, keys) in [("self-attention", TOKENS), ("cross-attention with a mask", 120)] {
        let (k, v) = (random(&[2, keys, WIDTH]), random(&[2, keys, WIDTH]));
        let mask = Tensor::zeros((2, keys), DType::F32, &Device::Cpu).unwrap();
        let bias = if keys == TOKENS { AttentionBias::None } else { AttentionBias::Keys(mask.clone()) };
        let split = |x: &Tensor| x.reshape((2, x.dim(1)?, HEADS, WIDTH / HEADS))?.transpose(1, 2)?.contiguous();
        pair(
            criterion,
            name,
            || attention(&q, &k, &v, HEADS, scale, &bias),
            || {
                let scores = (split(&q)?.matmul(&split(&k)?.t()?)? * scale)?;
                let scores = scores.broadcast_add(&mask.reshape((2, 1, 1, keys))?)?;
                let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
                weights.matmul(&split(&v)?)?.transpose(1, 2)?.reshape((2, TOKENS, WIDTH))
            },
        );
    }
}

fn pointwise(criterion: &mut Criterion) {
    let (x, y, row) = (random(&[2, TOKENS, WIDTH]), random(&[2, TOKENS, WIDTH]), random(&[1, 1, WIDTH]));
    pair(
        criterion,
        "layer norm + modulation",
        || layer_norm_modulated(&x, &row, &row, 1e-6),
        || {
            let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
            let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
            let normed = centred.broadcast_div(&(variance + 1e-6)?.sqrt()?)?;
            normed.broadcast_mul(&(&row + 1.0)?)?.broadcast_add(&row)
        },
    );
    pair(criterion, "gelu", || Activation::GeluTanh.apply(&x), || x.gelu());
    pair(criterion, "gate + residual", || gated_add(&x, &row, &y), || &x + y.broadcast_mul(&row)?);
    let angles = random(&[TOKENS, 36]);
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let heads = x.reshape((2, TOKENS, HEADS, 72)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap();
    pair(
        criterion,
        "rotary positions",
        || rotate(&x, &cos, &sin),
        || candle_nn::rotary_emb::rope_i(&heads, &cos, &sin),
    );
}

fn decoder(criterion: &mut Criterion) {
    let weights = Weights::random(&Device::Cpu);
    let params = weights.root();
    for (channels, side) in [(512, 64), (256, 128), (128, 256)] {
        let conv = Conv2d::load_same(&params, channels, channels, 3).unwrap();
        let (x, kernel) = (random(&[1, channels, side, side]), random(&[channels, channels, 3, 3]));
        let name = format!("conv 3x3, {channels} channels, {side}x{side}");
        pair(criterion, &name, || conv.forward(&x), || x.conv2d(&kernel, 1, 1, 1, 1));
    }
    let (norm, x) = (GroupNorm::load(&params, 32, 256, 1e-6).unwrap(), random(&[1, 256, 128, 128]));
    let (weight, bias) = (random(&[256]), random(&[256]));
    let plain = candle_nn::GroupNorm::new(weight, bias, 256, 32, 1e-6).unwrap();
    pair(criterion, "group norm + silu", || norm.forward_silu(&x), || candle_nn::Module::forward(&plain, &x)?.silu());
}

criterion_group!(kernels, linear, attend, pointwise, decoder);
criterion_main!(kernels);
