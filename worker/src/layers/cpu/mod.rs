//! Fused kernels for the CPU, over plain f32 slices.
//!
//! candle's own operations write every intermediate result to memory and call libm for transcendental functions; in a
//! small transformer that costs more than the matrix products. Each kernel here computes one layer in one pass.
//! `bf16.rs`, `gemm.rs` and `simd.rs` hold the unsafe code of the layers, behind functions that check their arguments.
//!
//! Results do not depend on the number of threads: work is split by rows, and each row is computed independently.

mod bf16;
mod detect;
mod gemm;
mod kernels;
mod rows;
mod simd;
#[cfg(test)]
pub(super) mod testing;

pub(crate) use bf16::{pack, packed_len};
pub use detect::instruction_set;
pub(super) use kernels::{
    ConvShape, activation, attention, conv_same, gated_add, group_norm, layer_norm_modulated, linear, linear_rounded,
    rotate,
};
pub(super) use rows::{BatchRows, TokenRows, contiguous};
