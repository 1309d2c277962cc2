//! Strided views of tensors that the kernels read.

use candle_core::{CpuStorage, Layout, Result};

/// The values of a contiguous f32 tensor.
pub(crate) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("the kernel needs a contiguous tensor, got strides {:?}", layout.stride()),
    }
}

/// A tensor `[b, t, d]` whose last dimension is contiguous. Tokens may be apart.
pub(crate) struct TokenRows<'a> {
    /// The values, starting at the first of the tensor.
    pub values: &'a [f32],
    /// Distance between adjacent tokens in values.
    pub token_stride: usize,
    /// Distance between adjacent batches in values.
    pub batch_stride: usize,
    /// Tokens per batch.
    pub tokens: usize,
    /// Batches.
    pub batch: usize,
    /// Values per token.
    pub width: usize,
}

impl<'a> TokenRows<'a> {
    /// Views a tensor of rank 3. Fails if its last dimension is not contiguous.
    pub(crate) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (batch, tokens, width) = layout.shape().dims3()?;
        let [batch_stride, token_stride, 1] = *layout.stride() else {
            candle_core::bail!("the last dimension must be contiguous, got strides {:?}", layout.stride());
        };
        let values = &storage.as_slice::<f32>()?[layout.start_offset()..];
        Ok(Self { values, token_stride, batch_stride, tokens, batch, width })
    }
}

/// A tensor `[1, 1, d]` or `[b, 1, d]`: one row for all batches, or one for each.
pub(crate) struct BatchRows<'a> {
    values: &'a [f32],
    stride: usize,
    width: usize,
}

impl<'a> BatchRows<'a> {
    /// Views a tensor to be combined with one of shape `dims`. Fails if it does not broadcast to that shape.
    pub(crate) fn new(storage: &'a CpuStorage, layout: &Layout, dims: (usize, usize, usize)) -> Result<Self> {
        let (batch, tokens, width) = layout.shape().dims3()?;
        if width != dims.2 || tokens != 1 || (batch != 1 && batch != dims.0) || layout.stride()[2] != 1 {
            candle_core::bail!("cannot modulate {dims:?} by {:?}", layout.dims());
        }
        let stride = if batch == 1 { 0 } else { layout.stride()[0] };
        Ok(Self { values: &storage.as_slice::<f32>()?[layout.start_offset()..], stride, width })
    }

    /// The row of one batch.
    pub(crate) fn row(&self, batch: usize) -> &'a [f32] {
        &self.values[batch * self.stride..][..self.width]
    }
}
