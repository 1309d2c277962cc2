//! The layers that models are made of, over candle tensors, f32.
//!
//! Each has a composed form from candle's own operations, which runs on every device, and a fused form for the CPU.
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

pub use activation::Activation;
pub use attention::{AttentionBias, attention};
pub use conv::Conv2d;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm, RmsNorm, gated_add, layer_norm_modulated};
pub use rotary::rotate;
