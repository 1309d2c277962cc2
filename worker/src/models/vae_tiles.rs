//! Decoding of large images in overlapping tiles, blended where they overlap: diffusers' `enable_tiling`.
//!
//! Norms see only one tile, so images differ slightly from those decoded whole.

use candle_core::Tensor;

use crate::files::error::Result;

/// Reciprocal of the share of a tile that overlaps the next one.
const OVERLAP: usize = 4;

/// Side of the tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Side in latent pixels.
    latent: usize,
    /// Side in image pixels.
    picture: usize,
}

impl Tiles {
    /// Tiles with a side of `picture` pixels, `scale` to a latent pixel.
    pub(super) fn new(picture: usize, scale: usize) -> Self {
        Self { latent: (picture / scale).max(1), picture }
    }

    /// Whether an image of this latent size takes more than one tile.
    pub(super) fn cut(self, height: usize, width: usize) -> bool {
        height > self.latent || width > self.latent
    }

    /// Start and length of each tile along a side, in latent pixels.
    pub(super) fn along(self, side: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        // As in diffusers, the distance between tiles is rounded down, not their overlap.
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

/// The first `length` elements of a dimension, or all if it is shorter.
fn start(x: &Tensor, dim: usize, length: usize) -> Result<Tensor> {
    Ok(x.narrow(dim, 0, length.min(x.dim(dim)?))?)
}

/// `tile` with its first `extent` rows (`dim` 2) or columns (`dim` 3) cross-faded from the last ones of `before`.
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
