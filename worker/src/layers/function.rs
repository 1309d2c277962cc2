//! The pointwise functions by name, for layers and kernels alike.

/// A pointwise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · sigmoid(1.702 x)`, as in CLIP.
    QuickGelu,
    /// GELU in its tanh form (Hendrycks and Gimpel, arXiv 1606.08415): `gelu_new`, `gelu-approximate`.
    GeluTanh,
    /// GELU with the error function: `gelu`.
    GeluErf,
}

impl Activation {
    /// The function that transformers' and diffusers' configs call `name`.
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
}
