//! The layers that models are made of, over candle tensors.
//!
//! Most have a composed form from candle's own operations, for every device and data type, and a fused form for f32 on
//! the CPU, where linear layers may keep their matrices in bf16.
//!
//! **Invariant:** layers know nothing of models or schedules, and read weights only through [`Params`].
//!
//! [`Params`]: crate::files::weights::Params

mod activation;
mod attention;
mod conv;
pub mod cpu;
mod function;
mod fused;
mod linear;
mod norm;
mod rotary;

pub use attention::{AttentionBias, attention};
pub use conv::Conv2d;
pub use function::Activation;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm, RmsNorm, gated_add, layer_norm_modulated};
pub use rotary::rotate;
