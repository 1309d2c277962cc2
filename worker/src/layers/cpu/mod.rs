//! Fused kernels for the CPU, over plain f32 slices.
//!
//! candle's own operations write every intermediate result to memory and run the transcendental functions through
//! libm; on a small transformer that costs more than the matrix products. Each kernel here does one layer in one pass.
//! `bf16.rs`, `gemm.rs` and `simd.rs` hold the crate's only unsafe code, behind functions that check their arguments.
//!
//! Results do not depend on the number of threads: work is cut by rows, and each row is computed alone.

mod bf16;
mod gemm;
mod kernels;
mod rows;
mod simd;
#[cfg(test)]
pub(super) mod testing;

pub(crate) use bf16::{pack, packed_len};
pub(super) use kernels::{
    ConvShape, activation, attention, conv_same, gated_add, group_norm, layer_norm_modulated, linear, linear_rounded,
    rotate,
};
pub(super) use rows::{BatchRows, TokenRows, contiguous};

/// What the kernels use of this processor, for people.
pub fn instruction_set() -> &'static str {
    simd::instruction_set()
}
