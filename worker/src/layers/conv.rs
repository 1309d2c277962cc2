//! Two-dimensional convolution.

use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};

use super::cpu;
use super::fused::is_fused;
use crate::files::error::Result as ModelResult;
use crate::files::weights::Params;

/// A two-dimensional convolution with bias.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    /// Rows of zeros above and below, columns left and right.
    padding: (usize, usize),
}

impl Conv2d {
    /// A convolution by `weight` `[out, in, rows, columns]` and `bias` `[out]`; `padding` counts rows and columns.
    pub fn new(weight: Tensor, bias: Tensor, stride: usize, padding: (usize, usize)) -> Self {
        Self { weight, bias, stride, padding }
    }

    /// The device of the weights.
    pub fn device(&self) -> &Device {
        self.weight.device()
    }

    /// Loads a convolution of stride 1 with an odd kernel that keeps height and width: `weight`
    /// `[out, in, kernel, kernel]`, `bias` `[out]`.
    pub fn load_same(params: &Params<'_>, inputs: usize, outputs: usize, kernel: usize) -> ModelResult<Self> {
        Self::load(params, inputs, outputs, kernel, 1, kernel / 2, true)
    }

    /// Loads a convolution over separate patches: its stride is the side of its kernel, `patch`.
    pub fn load_patches(
        params: &Params<'_>,
        inputs: usize,
        outputs: usize,
        patch: usize,
        bias: bool,
    ) -> ModelResult<Self> {
        Self::load(params, inputs, outputs, patch, patch, 0, bias)
    }

    /// Loads a convolution of any stride and padding: `weight` `[out, in, kernel, kernel]`, and `bias` `[out]` if
    /// `bias` is set, else zeros.
    pub fn load(
        params: &Params<'_>,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        bias: bool,
    ) -> ModelResult<Self> {
        let weight = params.tensor("weight", &[outputs, inputs, kernel, kernel])?;
        let bias = if bias {
            params.tensor("bias", &[outputs])?
        } else {
            Tensor::zeros(outputs, weight.dtype(), params.device())?
        };
        Ok(Self::new(weight, bias, stride, (padding, padding)))
    }

    /// `[b, in, h, w]` → `[b, out, h', w']`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, rows, columns) = self.weight.dims4()?;
        let keeps_size = rows == columns && rows % 2 == 1 && self.stride == 1 && self.padding == (rows / 2, rows / 2);
        if is_fused(x) && keeps_size {
            return x.contiguous()?.apply_op3_no_bwd(&self.weight, &self.bias, &Same);
        }
        self.composed(x)
    }

    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let (above, left) = self.padding;
        let y = if above == left {
            x.conv2d(&self.weight, above, self.stride, 1, 1)?
        } else {
            let padded = x.pad_with_zeros(2, above, above)?.pad_with_zeros(3, left, left)?;
            padded.conv2d(&self.weight, 0, self.stride, 1, 1)?
        };
        y.broadcast_add(&self.bias.reshape((1, (), 1, 1))?)
    }
}

/// A convolution of stride 1 that keeps the size, without unfolding the whole image at once.
struct Same;

impl CustomOp3 for Same {
    fn name(&self) -> &'static str {
        "conv2d-same"
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
        let (batch, inputs, height, width) = x_layout.shape().dims4()?;
        let (outputs, expected, kernel, _) = weight_layout.shape().dims4()?;
        if inputs != expected {
            candle_core::bail!("convolution of {expected} channels got a tensor of shape {:?}", x_layout.dims());
        }
        let shape = cpu::ConvShape { inputs, outputs, height, width, kernel };
        let y = cpu::conv_same(
            cpu::contiguous(x, x_layout)?,
            cpu::contiguous(weight, weight_layout)?,
            cpu::contiguous(bias, bias_layout)?,
            &shape,
        );
        Ok((CpuStorage::F32(y), (batch, outputs, height, width).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::cpu::testing::{assert_close, sample};

    #[test]
    fn fused_equals_composed_for_kernels_one_to_five_and_odd_sizes() {
        for (inputs, outputs, kernel, height, width) in [
            (1, 1, 3, 1, 1),
            (3, 5, 1, 4, 6),
            (4, 64, 3, 16, 16),
            (32, 3, 3, 9, 31),
            (8, 8, 5, 12, 7),
            (32, 32, 3, 64, 64),
        ] {
            let weight = sample(&[outputs, inputs, kernel, kernel], 1);
            let conv = Conv2d::new(weight, sample(&[outputs], 2), 1, (kernel / 2, kernel / 2));
            let x = sample(&[2, inputs, height, width], 3);
            assert_close(&conv.forward(&x).unwrap(), &conv.composed(&x).unwrap(), 1e-5);
        }
    }
}
