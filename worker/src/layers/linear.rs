//! The affine map `act(x · Wᵀ + b)`.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{Activation, cpu, is_fused};
use crate::files::error::Result as ModelResult;
use crate::files::weights::Params;

/// A linear layer; its weight is kept as `[in, out]`, the form the matrix product reads fastest.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]`, and `bias` `[outputs]` if there is to be one.
    pub fn load(params: &Params<'_>, inputs: usize, outputs: usize, bias: bool) -> ModelResult<Self> {
        Self::from_parts(vec![Self::read(params, inputs, outputs, bias)?])
    }

    /// Reads several layers with the same input as one whose outputs stand side by side.
    pub fn load_stacked(
        params: &Params<'_>,
        names: &[&str],
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> ModelResult<Self> {
        let parts =
            names.iter().map(|name| Self::read(&params.at(name), inputs, outputs, bias)).collect::<ModelResult<_>>()?;
        Self::from_parts(parts)
    }

    /// Reads weight `[outputs, inputs]` and bias `[outputs]` by names of their own.
    pub fn load_as(params: &Params<'_>, [weight, bias]: [&str; 2], inputs: usize, outputs: usize) -> ModelResult<Self> {
        Self::from_parts(vec![(params.tensor(weight, &[outputs, inputs])?, params.tensor(bias, &[outputs])?)])
    }

    /// Reads a matrix `[inputs, outputs]`, which is the transpose of a layer's usual one, without bias.
    pub fn load_transposed(params: &Params<'_>, name: &str, inputs: usize, outputs: usize) -> ModelResult<Self> {
        let weight = params.tensor(name, &[inputs, outputs])?;
        let bias = Tensor::zeros(outputs, weight.dtype(), params.device())?;
        Ok(Self { weight, bias })
    }

    fn read(params: &Params<'_>, inputs: usize, outputs: usize, bias: bool) -> ModelResult<(Tensor, Tensor)> {
        let weight = params.tensor("weight", &[outputs, inputs])?;
        let bias = if bias {
            params.tensor("bias", &[outputs])?
        } else {
            Tensor::zeros(outputs, weight.dtype(), params.device())?
        };
        Ok((weight, bias))
    }

    fn from_parts(parts: Vec<(Tensor, Tensor)>) -> ModelResult<Self> {
        let (weights, biases): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Ok(Self { weight: Tensor::cat(&weights, 0)?.t()?.contiguous()?, bias: Tensor::cat(&biases, 0)? })
    }

    /// `[…, in]` → `[…, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Activation::Identity)
    }

    /// `[…, in]` → `[…, out]`, with an activation on the result.
    pub fn forward_with(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        if is_fused(x) {
            return x.contiguous()?.apply_op3_no_bwd(&self.weight, &self.bias, &Fused { activation });
        }
        self.composed(x, activation)
    }

    fn composed(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let (inputs, outputs) = self.weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        let y = x.reshape(((), inputs))?.matmul(&self.weight)?.broadcast_add(&self.bias)?;
        activation.composed(&y)?.reshape(shape)
    }
}

/// Matrix product, bias and activation in one pass over the result.
struct Fused {
    activation: Activation,
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = cpu::contiguous(x, x_layout)?;
        let weight = cpu::contiguous(weight, weight_layout)?;
        let bias = cpu::contiguous(bias, bias_layout)?;
        let (inputs, outputs) = weight_layout.shape().dims2()?;
        let mut shape = x_layout.dims().to_vec();
        match shape.last_mut() {
            Some(last) if *last == inputs => *last = outputs,
            _ => candle_core::bail!("linear layer of {inputs} inputs got a tensor of shape {:?}", x_layout.dims()),
        }
        let y = cpu::linear(x, weight, bias, inputs, outputs, self.activation);
        Ok((CpuStorage::F32(y), shape.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::layers::cpu::testing::{assert_close, sample};

    #[test]
    fn fused_equals_composed_for_every_activation_and_odd_sizes() {
        use Activation::*;
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 7), (700, 33, 65), (64, 128, 384)] {
            let layer = Linear { weight: sample(&[inputs, outputs], 1), bias: sample(&[outputs], 2) };
            let x = sample(&[1, rows, inputs], 3);
            for activation in [Identity, Relu, Silu, QuickGelu, GeluTanh, GeluErf] {
                let fused = layer.forward_with(&x, activation).unwrap();
                assert_eq!(fused.dims(), [1, rows, outputs]);
                assert_close(&fused, &layer.composed(&x, activation).unwrap(), 2e-6);
            }
        }
    }

    #[test]
    fn a_wrong_width_is_an_error() {
        let layer = Linear { weight: sample(&[4, 2], 1), bias: sample(&[2], 2) };
        let x = Tensor::zeros((3, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(layer.forward(&x).unwrap_err().to_string().contains("linear layer of 4 inputs"));
    }
}
