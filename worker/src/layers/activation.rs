//! Pointwise activation functions applied to tensors.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::cpu;
use super::function::Activation;
use super::fused::is_fused;

impl Activation {
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
