//! Rotary position embeddings (Su et al., arXiv 2104.09864) over adjacent pairs of a head's values.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};

use super::cpu;
use super::fused::is_fused;

/// Rotates each pair `(2i, 2i + 1)` of every head of `x` `[b, t, heads · d]` by an angle whose cosine and sine are at
/// `(token, i)` of `cos` and `sin`, `[t, d / 2]`.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    if is_fused(x) {
        return x.contiguous()?.apply_op3_no_bwd(&cos.contiguous()?, &sin.contiguous()?, &Rotate);
    }
    composed(x, cos, sin)
}

fn composed(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    let pairs = cos.dim(1)?;
    let split = x.reshape((batch, tokens, width / (2 * pairs), pairs, 2))?;
    let (a, b) =
        (split.narrow(D::Minus1, 0, 1)?.squeeze(D::Minus1)?, split.narrow(D::Minus1, 1, 1)?.squeeze(D::Minus1)?);
    let (cos, sin) = (cos.reshape((1, tokens, 1, pairs))?, sin.reshape((1, tokens, 1, pairs))?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::stack(&[first, second], D::Minus1)?.reshape((batch, tokens, width))
}

struct Rotate;

impl CustomOp3 for Rotate {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, tokens, width) = x_layout.shape().dims3()?;
        let (rows, pairs) = cos_layout.shape().dims2()?;
        if rows != tokens || sin_layout.shape() != cos_layout.shape() || pairs == 0 || width % (2 * pairs) != 0 {
            candle_core::bail!("cannot rotate {:?} by angles {:?}", x_layout.dims(), cos_layout.dims());
        }
        let x = cpu::contiguous(x, x_layout)?;
        let (cos, sin) = (cpu::contiguous(cos, cos_layout)?, cpu::contiguous(sin, sin_layout)?);
        Ok((CpuStorage::F32(cpu::rotate(x, cos, sin, tokens, width)), x_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::cpu::testing::{assert_close, sample};

    #[test]
    fn fused_rotation_equals_composed() {
        for (batch, tokens, heads, pairs) in [(1, 1, 1, 1), (2, 5, 3, 4), (1, 130, 2, 64)] {
            let x = sample(&[batch, tokens, heads * 2 * pairs], 1);
            let angles = (sample(&[tokens, pairs], 2) * 5.0).unwrap();
            let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
            assert_close(&rotate(&x, &cos, &sin).unwrap(), &composed(&x, &cos, &sin).unwrap(), 1e-6);
        }
    }

    #[test]
    fn angles_of_another_number_of_tokens_are_an_error() {
        let (x, angles) = (sample(&[1, 4, 8], 1), sample(&[3, 2], 2));
        assert!(rotate(&x, &angles, &angles).unwrap_err().to_string().contains("cannot rotate [1, 4, 8]"));
    }
}
