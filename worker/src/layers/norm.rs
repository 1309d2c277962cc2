//! Normalizations, and the modulation and gating of adaptive layer norm.

use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};

use super::cpu;
use super::fused::is_fused;
use crate::files::error::Result as ModelResult;
use crate::files::weights::Params;

/// Layer normalization over the last dimension with a learned scale and shift.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    /// Reads `weight` and `bias`, both `[size]`.
    pub fn load(params: &Params<'_>, size: usize, eps: f64) -> ModelResult<Self> {
        Ok(Self { weight: params.tensor("weight", &[size])?, bias: params.tensor("bias", &[size])?, eps: eps as f32 })
    }

    /// Normalizes a tensor whose last dimension is `size`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, self.eps)
    }
}

/// Root-mean-square normalization over the last dimension, without mean and bias: T5's layer norm.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// Reads `weight` `[size]`.
    pub fn load(params: &Params<'_>, size: usize, eps: f64) -> ModelResult<Self> {
        Ok(Self { weight: params.tensor("weight", &[size])?, eps: eps as f32 })
    }

    /// Normalizes a tensor whose last dimension is `size`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&x.contiguous()?, &self.weight, self.eps)
    }
}

/// Layer norm without weights, then `· (1 + scale) + shift`: adaptive layer norm (DiT, arXiv 2212.09748).
/// `x` is `[b, t, d]`; `shift` and `scale` are `[1, 1, d]` or `[b, 1, d]`.
pub fn layer_norm_modulated(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    if is_fused(x) {
        return x.contiguous()?.apply_op3_no_bwd(shift, scale, &Modulated { eps: eps as f32 });
    }
    modulated_composed(x, shift, scale, eps)
}

fn modulated_composed(x: &Tensor, shift: &Tensor, scale: &Tensor, eps: f64) -> Result<Tensor> {
    // Half precision is too coarse for sums over a row.
    let wide = x.to_dtype(DType::F32)?;
    let centred = wide.broadcast_sub(&wide.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?.to_dtype(x.dtype())?;
    normed.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(shift)
}

/// `x + gate · y`, with `x` and `y` `[b, t, d]` and `gate` `[1, 1, d]` or `[b, 1, d]`.
pub fn gated_add(x: &Tensor, gate: &Tensor, y: &Tensor) -> Result<Tensor> {
    if is_fused(x) {
        return x.contiguous()?.apply_op3_no_bwd(&y.contiguous()?, gate, &GatedAdd);
    }
    x + y.broadcast_mul(gate)?
}

struct Modulated {
    eps: f32,
}

impl CustomOp3 for Modulated {
    fn name(&self) -> &'static str {
        "layer-norm-modulated"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let dims @ (_, tokens, width) = x_layout.shape().dims3()?;
        let x = cpu::contiguous(x, x_layout)?;
        let shift = cpu::BatchRows::new(shift, shift_layout, dims)?;
        let scale = cpu::BatchRows::new(scale, scale_layout, dims)?;
        let y = cpu::layer_norm_modulated(x, &shift, &scale, tokens, width, self.eps);
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }
}

struct GatedAdd;

impl CustomOp3 for GatedAdd {
    fn name(&self) -> &'static str {
        "gated-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
        gate: &CpuStorage,
        gate_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let dims @ (_, tokens, width) = x_layout.shape().dims3()?;
        if y_layout.shape() != x_layout.shape() {
            candle_core::bail!("cannot add an output of shape {:?} to {:?}", y_layout.dims(), x_layout.dims());
        }
        let (x, y) = (cpu::contiguous(x, x_layout)?, cpu::contiguous(y, y_layout)?);
        let gate = cpu::BatchRows::new(gate, gate_layout, dims)?;
        Ok((CpuStorage::F32(cpu::gated_add(x, y, &gate, tokens, width)), x_layout.shape().clone()))
    }
}

/// Group normalization over `[b, c, h, w]`, optionally followed by SiLU.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    /// Reads `weight` and `bias`, both `[channels]`. Fails unless `groups` divides `channels`.
    pub fn load(params: &Params<'_>, groups: usize, channels: usize, eps: f64) -> ModelResult<Self> {
        if !channels.is_multiple_of(groups) {
            return Err(crate::files::error::ModelError::Input(format!(
                "a group norm cannot divide {channels} channels into {groups} groups"
            )));
        }
        let (weight, bias) = (params.tensor("weight", &[channels])?, params.tensor("bias", &[channels])?);
        Ok(Self { weight, bias, groups, eps: eps as f32 })
    }

    /// `[b, c, h, w]` → the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    /// [`forward`](Self::forward), then SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, true)
    }

    fn run(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        if is_fused(x) {
            let op = FusedGroupNorm { groups: self.groups, eps: self.eps, silu };
            return x.contiguous()?.apply_op3_no_bwd(&self.weight, &self.bias, &op);
        }
        self.composed(x, silu)
    }

    fn composed(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let flat = x.reshape((batch, self.groups, channels / self.groups * height * width))?;
        let centred = flat.broadcast_sub(&flat.mean_keepdim(2)?)?;
        let variance = centred.sqr()?.mean_keepdim(2)?;
        let normed = centred.broadcast_div(&(variance + f64::from(self.eps))?.sqrt()?)?.reshape(x.shape())?;
        let y = normed
            .broadcast_mul(&self.weight.reshape((1, channels, 1, 1))?)?
            .broadcast_add(&self.bias.reshape((1, channels, 1, 1))?)?;
        if silu { y.silu() } else { Ok(y) }
    }
}

struct FusedGroupNorm {
    groups: usize,
    eps: f32,
    silu: bool,
}

impl CustomOp3 for FusedGroupNorm {
    fn name(&self) -> &'static str {
        "group-norm"
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
        let (_, channels, height, width) = x_layout.shape().dims4()?;
        let (weight, bias) = (cpu::contiguous(weight, weight_layout)?, cpu::contiguous(bias, bias_layout)?);
        if weight.len() != channels || bias.len() != channels {
            candle_core::bail!("group norm of {} channels got a tensor of {channels}", weight.len());
        }
        let per_group = channels / self.groups;
        let y = cpu::group_norm(
            cpu::contiguous(x, x_layout)?,
            weight,
            bias,
            per_group,
            height * width,
            self.eps,
            self.silu,
        );
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::cpu::testing::{assert_close, sample};

    #[test]
    fn fused_modulation_equals_composed() {
        for (batch, tokens, width, rows) in [(1, 1, 1, 1), (2, 3, 5, 1), (4, 7, 128, 4), (2, 65, 1152, 2)] {
            let x = sample(&[batch, tokens, width], 1);
            let table = sample(&[rows, 6, width], 2);
            let (shift, scale) = (table.narrow(1, 1, 1).unwrap(), table.narrow(1, 4, 1).unwrap());
            let fused = layer_norm_modulated(&x, &shift, &scale, 1e-6).unwrap();
            assert_close(&fused, &modulated_composed(&x, &shift, &scale, 1e-6).unwrap(), 5e-6);
            let y = sample(&[batch, tokens, width], 3);
            let composed = (&x + y.broadcast_mul(&scale).unwrap()).unwrap();
            assert_close(&gated_add(&x, &scale, &y).unwrap(), &composed, 1e-6);
        }
    }

    #[test]
    fn fused_group_norm_equals_composed() {
        for (channels, groups, side) in [(4, 2, 1), (32, 8, 5), (64, 8, 16)] {
            let norm = GroupNorm { weight: sample(&[channels], 1), bias: sample(&[channels], 2), groups, eps: 1e-6 };
            let x = (sample(&[3, channels, side, side], 3) + 0.7).unwrap();
            for silu in [false, true] {
                assert_close(&norm.run(&x, silu).unwrap(), &norm.composed(&x, silu).unwrap(), 5e-6);
            }
        }
    }
}
