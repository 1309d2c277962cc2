//! Pointwise activation functions, found by their names in configs.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{cpu, is_fused};

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

    /// Applies the function.
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        if is_fused(x) {
            return x.contiguous()?.apply_op1_no_bwd(&Fused(self));
        }
        self.composed(x)
    }

    /// Applies the function with candle's operations, on any device.
    pub(super) fn composed(self, x: &Tensor) -> Result<Tensor> {
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

/// The function in one pass over the values, f32 on the CPU.
struct Fused(Activation);

impl CustomOp1 for Fused {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = cpu::activation(cpu::contiguous(x, layout)?, self.0);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::cpu::testing::{assert_close, sample};

    #[test]
    fn fused_equals_composed_for_every_function() {
        use Activation::*;
        let x = (sample(&[3, 20_011], 1) * 6.0).unwrap();
        for activation in [Identity, Relu, Silu, QuickGelu, GeluTanh, GeluErf] {
            assert_close(&activation.apply(&x).unwrap(), &activation.composed(&x).unwrap(), 1e-6);
        }
    }
}
