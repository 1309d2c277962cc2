//! Multi-head scaled dot-product attention.

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};

use super::cpu;
use super::fused::is_fused;

/// Most scores held at once by the composed form, which writes them to memory: 128 MiB of bf16.
const SCORES: usize = 1 << 26;

/// The bias added to the scores before the softmax.
#[derive(Debug, Clone)]
pub enum AttentionBias {
    /// No bias.
    None,
    /// One value per key, `[b, keys]`, such as a padding mask.
    Keys(Tensor),
    /// Anything that broadcasts to `[b, heads, queries, keys]`.
    Scores(Tensor),
}

/// `softmax(scale · q · kᵀ + bias) · v` for each head. `q` is `[b, tq, heads · d]`, `k` and `v` are
/// `[b, tk, heads · d]`; each may be a view into a wider tensor; the result is `[b, tq, heads · d]`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, scale: f64, bias: &AttentionBias) -> Result<Tensor> {
    let keys = match bias {
        AttentionBias::None => Some(None),
        AttentionBias::Keys(keys) => Some(Some(keys)),
        AttentionBias::Scores(_) => None,
    };
    if let (true, Some(keys)) = (is_fused(q), keys) {
        let key_bias = keys.map(|keys| keys.to_vec2::<f32>()).transpose()?;
        return q.apply_op3_no_bwd(k, v, &Fused { heads, scale: scale as f32, key_bias });
    }
    composed(q, k, v, heads, scale, bias, SCORES)
}

/// Attention with candle's operations. They write the scores to memory, so queries are processed in blocks of at most
/// `most` scores.
fn composed(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    scale: f64,
    bias: &AttentionBias,
    most: usize,
) -> Result<Tensor> {
    let (batch, queries, width) = q.dims3()?;
    let rows = (most / (batch * heads * k.dim(1)?).max(1)).max(1);
    let split = |x: &Tensor| {
        let (batch, tokens, width) = x.dims3()?;
        x.reshape((batch, tokens, heads, width / heads))?.transpose(1, 2)?.contiguous()
    };
    let (q, k, v) = (split(&(q * scale)?)?, split(k)?, split(v)?);
    let keys_t = k.t()?;
    let block = |first: usize| {
        let count = rows.min(queries - first);
        let scores = q.narrow(2, first, count)?.contiguous()?.matmul(&keys_t)?;
        let scores = match bias {
            AttentionBias::None => scores,
            AttentionBias::Keys(keys) => {
                let (rows, keys_len) = keys.dims2()?;
                scores.broadcast_add(&keys.reshape((rows, 1, 1, keys_len))?)?
            }
            AttentionBias::Scores(bias) if bias.dim(2)? == 1 => scores.broadcast_add(bias)?,
            AttentionBias::Scores(bias) => scores.broadcast_add(&bias.narrow(2, first, count)?)?,
        };
        candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)
    };
    let blocks = (0..queries).step_by(rows).map(block).collect::<Result<Vec<_>>>()?;
    let all = if let [one] = &blocks[..] { one.clone() } else { Tensor::cat(&blocks, 2)? };
    all.transpose(1, 2)?.reshape((batch, queries, width))
}

/// Attention that reads queries, keys and values in place and holds only the scores of each task's rows.
struct Fused {
    heads: usize,
    scale: f32,
    key_bias: Option<Vec<Vec<f32>>>,
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, _, width) = q_layout.shape().dims3()?;
        let (_, keys, _) = k_layout.shape().dims3()?;
        if k_layout.shape().dims3()? != (batch, keys, width)
            || v_layout.shape() != k_layout.shape()
            || width % self.heads != 0
            || keys == 0
        {
            candle_core::bail!(
                "attention of {} heads cannot take queries {:?}, keys {:?}, values {:?}",
                self.heads,
                q_layout.dims(),
                k_layout.dims(),
                v_layout.dims()
            );
        }
        if let Some(bias) = &self.key_bias
            && (bias.len() != batch || bias.iter().any(|row| row.len() != keys))
        {
            candle_core::bail!("attention bias does not fit {batch} batches of {keys} keys");
        }
        let [q, k, v] = [(q, q_layout), (k, k_layout), (v, v_layout)].map(|(s, l)| cpu::TokenRows::new(s, l));
        let y = cpu::attention(&q?, &k?, &v?, self.heads, self.scale, self.key_bias.as_deref());
        Ok((CpuStorage::F32(y), q_layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::cpu::testing::{assert_close, sample};

    #[test]
    fn fused_equals_composed_on_views_with_and_without_mask() {
        for (batch, queries, keys, heads, d) in
            [(1, 1, 1, 1, 1), (2, 5, 3, 2, 7), (3, 64, 24, 4, 32), (1, 200, 200, 2, 72)]
        {
            let width = heads * d;
            let wide = sample(&[batch, queries, 2 * width + 3], 1);
            let q = wide.narrow(2, 3, width).unwrap();
            let pair = sample(&[batch, keys, 2 * width], 2);
            let (k, v) = (pair.narrow(2, 0, width).unwrap(), pair.narrow(2, width, width).unwrap());
            let mask = (sample(&[batch, keys], 3).ge(0.0).unwrap().to_dtype(candle_core::DType::F32).unwrap()
                * -10000.0)
                .unwrap();
            for bias in [AttentionBias::None, AttentionBias::Keys(mask)] {
                let fused = attention(&q, &k, &v, heads, 0.3, &bias).unwrap();
                let whole = composed(&q, &k, &v, heads, 0.3, &bias, SCORES).unwrap();
                assert_close(&fused, &whole, 5e-6);
                let blocks = composed(&q, &k, &v, heads, 0.3, &bias, 3 * batch * heads * keys).unwrap();
                assert_close(&blocks, &whole, 1e-6);
            }
        }
    }
}
