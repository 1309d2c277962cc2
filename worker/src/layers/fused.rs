//! When a layer runs in its fused form.

use candle_core::{DType, Tensor};

/// Whether the fused kernels can take this tensor.
pub(super) fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}
