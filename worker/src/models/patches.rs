//! Images as tokens: the sizes that can be cut into patches, and the image that tokens form.

use candle_core::{DType, Tensor};

use super::block_model::LatentSize;
use crate::files::error::{ModelError, Result};

/// Rows and columns of patches. Fails, naming the possible sizes, if the image is not a whole number of patches.
pub(super) fn grid(size: LatentSize, patch: usize) -> Result<(usize, usize)> {
    if size.height == 0 || size.width == 0 || !size.height.is_multiple_of(patch) || !size.width.is_multiple_of(patch) {
        let unit = patch * size.scale;
        return Err(ModelError::Input(format!(
            "a picture of {}x{} pixels cannot be cut into patches; height and width must be multiples of {unit}",
            size.height * size.scale,
            size.width * size.scale,
        )));
    }
    Ok((size.height / patch, size.width / patch))
}

/// Fails unless latents are `[batch, channels, height, width]`.
pub(super) fn check_latents(latents: &Tensor, batch: usize, channels: usize, size: LatentSize) -> Result<()> {
    if latents.dims() == [batch, channels, size.height, size.width] {
        return Ok(());
    }
    Err(ModelError::Input(format!(
        "latents {:?} do not fit {batch} prompts of {}x{} with {channels} channels",
        latents.dims(),
        size.height,
        size.width,
    )))
}

/// Tokens `[b, rows · columns, patch · patch · channels]`, channels innermost, → latents `[b, kept, height, width]` in
/// f32, with the first `kept` channels only.
pub(super) fn unpatch(tokens: &Tensor, size: LatentSize, patch: usize, channels: usize, kept: usize) -> Result<Tensor> {
    let (rows, columns) = grid(size, patch)?;
    let batch = tokens.dim(0)?;
    let picture = tokens
        .reshape(vec![batch, rows, columns, patch, patch, channels])?
        .narrow(5, 0, kept)?
        .permute(vec![0, 5, 1, 3, 2, 4])?
        .reshape((batch, kept, size.height, size.width))?
        .to_dtype(DType::F32)?;
    Ok(picture)
}
