//! Large pictures decoded in overlapping tiles, which are blended where they meet: diffusers' `enable_tiling`.
//!
//! A tile's norms see the tile only, so pictures differ a little from those decoded whole.

use candle_core::Tensor;

use crate::files::error::Result;

/// The share of a tile that overlaps the next one, as its reciprocal.
const OVERLAP: usize = 4;

/// Sides of the tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiles {
    /// In latent rows.
    latent: usize,
    /// In pixels.
    picture: usize,
}

impl Tiles {
    /// Tiles of `picture` pixels, each latent row being `scale` of them.
    pub(super) fn new(picture: usize, scale: usize) -> Self {
        Self { latent: (picture / scale).max(1), picture }
    }

    /// Whether a picture of this latent size is cut at all.
    pub(super) fn cut(self, height: usize, width: usize) -> bool {
        height > self.latent || width > self.latent
    }

    /// Where tiles begin along a side, and how long each is.
    pub(super) fn along(self, side: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        // As diffusers rounds: down, the overlap's complement.
        let distance = (self.latent * (OVERLAP - 1) / OVERLAP).max(1);
        (0..side).step_by(distance).map(move |first| (first, self.latent.min(side - first)))
    }

    /// Decodes latents `[b, c, h, w]` tile by tile.
    pub(super) fn decode(self, latents: &Tensor, decode: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (_, _, height, width) = latents.dims4()?;
        let blend = self.picture / OVERLAP;
        let kept = self.picture - blend;
        let mut above: Vec<Tensor> = Vec::new();
        let mut rows = Vec::new();
        for (top, tall) in self.along(height) {
            let mut row: Vec<Tensor> = Vec::new();
            for (left, wide) in self.along(width) {
                let tile = latents.narrow(2, top, tall)?.narrow(3, left, wide)?.contiguous()?;
                let mut tile = decode(&tile)?;
                if let Some(above) = above.get(row.len()) {
                    tile = blended(above, &tile, blend, 2)?;
                }
                if let Some(before) = row.last() {
                    tile = blended(before, &tile, blend, 3)?;
                }
                row.push(tile);
            }
            let parts = row.iter().map(|tile| start(&start(tile, 2, kept)?, 3, kept)).collect::<Result<Vec<_>>>()?;
            rows.push(Tensor::cat(&parts, 3)?);
            above = row;
        }
        Ok(Tensor::cat(&rows, 2)?)
    }
}

/// The first `length` of a dimension, or all of it.
fn start(x: &Tensor, dim: usize, length: usize) -> Result<Tensor> {
    Ok(x.narrow(dim, 0, length.min(x.dim(dim)?))?)
}

/// `tile` whose first `extent` rows (`dim` 2) or columns (3) come out of the last ones of the tile before.
fn blended(before: &Tensor, tile: &Tensor, extent: usize, dim: usize) -> Result<Tensor> {
    let (from, length) = (before.dim(dim)?, tile.dim(dim)?);
    let extent = extent.min(from).min(length);
    if extent == 0 {
        return Ok(tile.clone());
    }
    let ramp: Vec<f32> = (0..extent).map(|i| (i as f64 / extent as f64) as f32).collect();
    let mut shape = vec![1; 4];
    shape[dim] = extent;
    let ramp = Tensor::from_vec(ramp, shape, tile.device())?;
    let (old, new) = (before.narrow(dim, from - extent, extent)?, tile.narrow(dim, 0, extent)?);
    let seam = (old.broadcast_mul(&(1.0 - &ramp)?)? + new.broadcast_mul(&ramp)?)?;
    Ok(Tensor::cat(&[seam, tile.narrow(dim, extent, length - extent)?], dim)?)
}
