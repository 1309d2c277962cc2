//! The layers that models are made of, over candle tensors.
//!
//! Each has a composed form from candle's own operations, which runs on every device and with every kind of numbers, and a
//! fused form for f32 on the CPU, where linear layers may keep their matrices in bf16.
//! Layers know shapes and weights; they know no model, no schedule and no file but through [`Params`].
//!
//! [`Params`]: crate::files::weights::Params

mod activation;
mod attention;
mod conv;
pub mod cpu;
mod linear;
mod norm;
mod rotary;

use candle_core::{DType, Tensor};

/// Whether the fused kernels can take it.
fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

pub use activation::Activation;
pub use attention::{AttentionBias, attention};
pub use conv::Conv2d;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm, RmsNorm, gated_add, layer_norm_modulated};
pub use rotary::rotate;
