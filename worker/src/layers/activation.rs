//! Pointwise activation functions, by the names that configs use.

use candle_core::{Result, Tensor};

/// A pointwise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · sigmoid(1.702 x)`, CLIP's.
    QuickGelu,
    /// GELU in its tanh form (Hendrycks and Gimpel, arXiv 1606.08415): `gelu_new`, `gelu-approximate`.
    GeluTanh,
    /// GELU with the error function: `gelu`.
    GeluErf,
}

impl Activation {
    /// The function of a config's name, in transformers' and diffusers' spelling.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            "quick_gelu" => Self::QuickGelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu-approximate" => Self::GeluTanh,
            "gelu" => Self::GeluErf,
            _ => return None,
        })
    }

    /// Applies the function with candle's operations.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Identity => Ok(x.clone()),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
            Self::QuickGelu => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
            Self::GeluTanh => x.gelu(),
            Self::GeluErf => x.gelu_erf(),
        }
    }
}
