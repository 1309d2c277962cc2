//! Joint attention over several streams of tokens, as in MMDiT (arXiv 2403.03206): each stream has its own projections,
//! and each token attends to the tokens of all streams.

use candle_core::Tensor;

use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::{AttentionBias, Linear, RmsNorm, attention, rotate};

/// Epsilon of the query and key norms, fixed in diffusers.
const EPS: f64 = 1e-6;

/// Number of heads, and their width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heads {
    pub(super) count: usize,
    pub(super) dim: usize,
}

impl Heads {
    /// Width of a token.
    pub(super) fn width(self) -> usize {
        self.count * self.dim
    }
}

/// Queries, keys and values of tokens, `[b, t, width]` each.
pub(super) struct Qkv([Tensor; 3]);

impl Qkv {
    /// Concatenates the tokens of `self` and `other`.
    pub(super) fn then(&self, other: &Self) -> Result<Self> {
        let [q, k, v] = [0, 1, 2].map(|i| Tensor::cat(&[&self.0[i], &other.0[i]], 1));
        Ok(Self([q?, k?, v?]))
    }

    /// Rotates queries and keys by the positions of their tokens, given as cosines and sines `[t, dim / 2]`.
    pub(super) fn rotated(self, cos: &Tensor, sin: &Tensor) -> Result<Self> {
        let [q, k, v] = self.0;
        Ok(Self([rotate(&q, cos, sin)?, rotate(&k, cos, sin)?, v]))
    }

    /// Attention of each token to all tokens, `[b, t, width]`.
    pub(super) fn attend(&self, heads: Heads) -> Result<Tensor> {
        let [q, k, v] = &self.0;
        Ok(attention(q, k, v, heads.count, 1.0 / (heads.dim as f64).sqrt(), &AttentionBias::None)?)
    }
}

/// Names of a stream's tensors in checkpoints.
pub(super) struct Names {
    projections: [&'static str; 3],
    norms: [&'static str; 2],
}

/// Names for the image stream, and for the only stream of a single block.
pub(super) const OWN: Names = Names { projections: ["to_q", "to_k", "to_v"], norms: ["norm_q", "norm_k"] };

/// Names for the text stream of a joint block.
pub(super) const ADDED: Names =
    Names { projections: ["add_q_proj", "add_k_proj", "add_v_proj"], norms: ["norm_added_q", "norm_added_k"] };

/// Projections of one stream to queries, keys and values.
pub(super) struct Projections {
    qkv: Linear,
    norms: Option<[RmsNorm; 2]>,
    heads: Heads,
}

impl Projections {
    /// Loads the projections, and the per-head norms of queries and keys if `normed`.
    pub(super) fn load(params: &Params<'_>, names: &Names, heads: Heads, normed: bool) -> Result<Self> {
        let width = heads.width();
        let norm = |name: &str| RmsNorm::load(&params.at(name), heads.dim, EPS);
        Ok(Self {
            qkv: Linear::load_stacked(params, &names.projections, width, width, true)?,
            norms: if normed { Some([norm(names.norms[0])?, norm(names.norms[1])?]) } else { None },
            heads,
        })
    }

    /// Projects `x` `[b, t, width]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Qkv> {
        let (batch, tokens, width) = x.dims3()?;
        let qkv = self.qkv.forward(x)?;
        let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * width, width));
        let Some([norm_q, norm_k]) = &self.norms else { return Ok(Qkv([q?, k?, v?])) };
        let per_head = |x: Tensor, norm: &RmsNorm| -> Result<Tensor> {
            let split = x.reshape((batch, tokens, self.heads.count, self.heads.dim))?;
            Ok(norm.forward(&split)?.reshape((batch, tokens, width))?)
        };
        Ok(Qkv([per_head(q?, norm_q)?, per_head(k?, norm_k)?, v?]))
    }
}
