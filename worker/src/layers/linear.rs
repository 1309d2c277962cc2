//! The affine map `act(x · Wᵀ + b)`.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::cpu;
use super::function::Activation;
use super::fused::is_fused;
use crate::files::error::Result as ModelResult;
use crate::files::weights::Params;

/// A linear layer.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Weight,
    bias: Tensor,
}

/// A weight in the layout that its matrix product reads fastest.
#[derive(Debug, Clone)]
enum Weight {
    /// `[in, out]`, of the same data type as the inputs.
    Whole(Tensor),
    /// Rounded to bf16, for f32 inputs on the CPU; see [`cpu::pack`].
    Rounded { packed: Tensor, inputs: usize },
}

impl Linear {
    /// Reads `weight` `[outputs, inputs]`, and `bias` `[outputs]` if `bias` is set.
    pub fn load(params: &Params<'_>, inputs: usize, outputs: usize, bias: bool) -> ModelResult<Self> {
        Self::from_parts(params, vec![Self::read(params, inputs, outputs, bias)?])
    }

    /// Reads several layers with the same input as one layer whose outputs are concatenated.
    pub fn load_stacked(
        params: &Params<'_>,
        names: &[&str],
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> ModelResult<Self> {
        let parts =
            names.iter().map(|name| Self::read(&params.at(name), inputs, outputs, bias)).collect::<ModelResult<_>>()?;
        Self::from_parts(params, parts)
    }

    /// Reads weight `[outputs, inputs]` and bias `[outputs]` by the given names.
    pub fn load_as(params: &Params<'_>, [weight, bias]: [&str; 2], inputs: usize, outputs: usize) -> ModelResult<Self> {
        Self::from_parts(params, vec![(params.tensor(weight, &[outputs, inputs])?, params.tensor(bias, &[outputs])?)])
    }

    /// Reads a layer without bias from a matrix `[inputs, outputs]`, the transpose of the usual weight.
    pub fn load_transposed(params: &Params<'_>, name: &str, inputs: usize, outputs: usize) -> ModelResult<Self> {
        let weight = params.tensor(name, &[inputs, outputs])?;
        let bias = Tensor::zeros(outputs, weight.dtype(), params.device())?;
        Ok(Self { weight: Weight::Whole(weight), bias })
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

    fn from_parts(params: &Params<'_>, parts: Vec<(Tensor, Tensor)>) -> ModelResult<Self> {
        let (weights, biases): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let (weight, bias) = (Tensor::cat(&weights, 0)?, Tensor::cat(&biases, 0)?);
        let weight =
            if params.rounds_matrices() { Weight::rounded(&weight)? } else { Weight::Whole(weight.t()?.contiguous()?) };
        Ok(Self { weight, bias })
    }

    /// `[…, in]` → `[…, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, Activation::Identity)
    }

    /// `[…, in]` → `[…, out]`, with an activation on the result.
    pub fn forward_with(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match &self.weight {
            Weight::Rounded { packed, inputs } => {
                x.contiguous()?.apply_op3_no_bwd(packed, &self.bias, &Rounded { inputs: *inputs, activation })
            }
            Weight::Whole(weight) if is_fused(x) => {
                x.contiguous()?.apply_op3_no_bwd(weight, &self.bias, &Fused { activation })
            }
            Weight::Whole(weight) => composed(x, weight, &self.bias, activation),
        }
    }
}

impl Weight {
    /// Rounds and packs a weight `[out, in]`.
    fn rounded(weight: &Tensor) -> Result<Self> {
        let (outputs, inputs) = weight.dims2()?;
        let packed = cpu::pack(&weight.flatten_all()?.to_vec1()?, inputs, outputs);
        let packed = Tensor::from_vec(packed, cpu::packed_len(inputs, outputs), weight.device())?;
        Ok(Self::Rounded { packed, inputs })
    }
}

fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let (inputs, outputs) = weight.dims2()?;
    let shape = shape_of_outputs(x.dims(), inputs, outputs)?;
    let y = x.reshape(((), inputs))?.matmul(weight)?.broadcast_add(bias)?;
    activation.composed(&y)?.reshape(shape)
}

/// The shape of the inputs with the last dimension replaced by `outputs`.
fn shape_of_outputs(x: &[usize], inputs: usize, outputs: usize) -> Result<Vec<usize>> {
    match x.split_last() {
        Some((&last, rest)) if last == inputs => Ok([rest, &[outputs]].concat()),
        _ => candle_core::bail!("linear layer of {inputs} inputs got a tensor of shape {x:?}"),
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
        let shape = shape_of_outputs(x_layout.dims(), inputs, outputs)?;
        let y = cpu::linear(x, weight, bias, inputs, outputs, self.activation);
        Ok((CpuStorage::F32(y), shape.into()))
    }
}

/// [`Fused`] with a weight rounded to bf16.
struct Rounded {
    inputs: usize,
    activation: Activation,
}

impl CustomOp3 for Rounded {
    fn name(&self) -> &'static str {
        "linear in bf16"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        _: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = cpu::contiguous(x, x_layout)?;
        let bias = cpu::contiguous(bias, bias_layout)?;
        let shape = shape_of_outputs(x_layout.dims(), self.inputs, bias.len())?;
        let y = cpu::linear_rounded(x, weight.as_slice()?, bias, self.inputs, self.activation);
        Ok((CpuStorage::F32(y), shape.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::layers::cpu::testing::{assert_close, sample};

    #[test]
    fn fused_equals_composed_for_every_activation_and_odd_sizes() {
        use Activation::*;
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 7), (700, 33, 65), (64, 128, 384)] {
            let (weight, bias) = (sample(&[inputs, outputs], 1), sample(&[outputs], 2));
            let layer = Linear { weight: Weight::Whole(weight.clone()), bias: bias.clone() };
            let x = sample(&[1, rows, inputs], 3);
            for activation in [Identity, Relu, Silu, QuickGelu, GeluTanh, GeluErf] {
                let fused = layer.forward_with(&x, activation).unwrap();
                assert_eq!(fused.dims(), [1, rows, outputs]);
                assert_close(&fused, &composed(&x, &weight, &bias, activation).unwrap(), 2e-6);
            }
        }
    }

    #[test]
    fn a_wrong_width_is_an_error() {
        let whole = Weight::Whole(sample(&[4, 2], 1));
        let rounded = Weight::rounded(&sample(&[2, 4], 1)).unwrap();
        for weight in [whole, rounded] {
            let layer = Linear { weight, bias: sample(&[2], 2) };
            let x = Tensor::zeros((3, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
            assert!(layer.forward(&x).unwrap_err().to_string().contains("linear layer of 4 inputs"));
        }
    }

    #[test]
    fn a_rounded_weight_differs_by_what_bf16_rounds() {
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 7), (700, 33, 65), (64, 128, 384)] {
            let (weight, bias, x) = (sample(&[outputs, inputs], 1), sample(&[outputs], 2), sample(&[rows, inputs], 3));
            let layer = Linear { weight: Weight::rounded(&weight).unwrap(), bias: bias.clone() };
            let rounded = |x: &Tensor| x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
            let weight = rounded(&weight.t().unwrap().contiguous().unwrap());
            let wanted = composed(&rounded(&x), &weight, &bias, Activation::GeluTanh).unwrap();
            assert_close(&layer.forward_with(&x, Activation::GeluTanh).unwrap(), &wanted, 2e-6);
        }
    }
}
