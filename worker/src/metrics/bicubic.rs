//! Resizing with a separable filter, as in Pillow and torch.

use candle_core::{Device, Tensor};

use crate::files::error::Result;

/// A resampling filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    /// Bilinear filter.
    Triangle,
    /// Bicubic filter with a = -0.5 (Keys, 1981).
    Cubic,
}

impl Filter {
    fn radius(self) -> f64 {
        match self {
            Self::Triangle => 1.0,
            Self::Cubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Triangle => (1.0 - x).max(0.0),
            Self::Cubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Cubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Cubic => 0.0,
        }
    }
}

/// How a picture is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resampling {
    /// The filter.
    pub(super) filter: Filter,
    /// Whether the filter is widened when shrinking.
    pub(super) antialias: bool,
    /// Whether values are rounded to bytes before, between and after both passes, as in Pillow. If not, they may exceed
    /// [0, 1].
    pub(super) bytes: bool,
}

/// The weights `[to, from]` that resize a line of `from` pixels to `to` pixels.
fn weights(from: usize, to: usize, how: Resampling) -> Vec<f32> {
    let ratio = from as f64 / to as f64;
    let stretch = if how.antialias { ratio.max(1.0) } else { 1.0 };
    let reach = how.filter.radius() * stretch;
    let mut all = vec![0f32; to * from];
    for (i, row) in all.chunks_exact_mut(from).enumerate() {
        let centre = (i as f64 + 0.5) * ratio;
        let first = (centre - reach + 0.5).max(0.0) as usize;
        let last = ((centre + reach + 0.5) as usize).min(from);
        let line: Vec<f64> = (first..last).map(|j| how.filter.at((j as f64 + 0.5 - centre) / stretch)).collect();
        let total: f64 = line.iter().sum();
        for (weight, value) in row[first..last].iter_mut().zip(line) {
            *weight = (value / total) as f32;
        }
    }
    all
}

/// Resizes `[b, c, h, w]` in [0, 1] on the CPU to `[b, c, height, width]`; a no-op for pictures of that size.
pub(super) fn resize(pictures: &Tensor, height: usize, width: usize, how: Resampling) -> Result<Tensor> {
    let (batch, channels, from_height, from_width) = pictures.dims4()?;
    if (from_height, from_width) == (height, width) {
        return Ok(pictures.clone());
    }
    let round = |x: Tensor| if how.bytes { whole_bytes(&x) } else { Ok(x) };
    let across = Tensor::from_vec(weights(from_width, width, how), (width, from_width), &Device::Cpu)?;
    let down = Tensor::from_vec(weights(from_height, height, how), (height, from_height), &Device::Cpu)?;
    let lines = round(pictures.contiguous()?)?.reshape((batch * channels * from_height, from_width))?;
    let planes = round(lines.matmul(&across.t()?)?)?.reshape((batch * channels, from_height, width))?;
    let down = down.broadcast_left(batch * channels)?.contiguous()?;
    Ok(round(down.matmul(&planes)?)?.reshape((batch, channels, height, width))?)
}

/// Values in [0, 1] rounded to multiples of 1/255.
fn whole_bytes(x: &Tensor) -> candle_core::Result<Tensor> {
    ((x * 255.0)? + 0.5)?.floor()?.clamp(0f32, 255f32)? / 255.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(values: &[f32], to: usize, how: Resampling) -> Vec<f32> {
        let line = Tensor::from_slice(values, (1, 1, 1, values.len()), &Device::Cpu).unwrap();
        resize(&line, 1, to, how).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn lines_are_those_of_torch_with_antialias() {
        let line = [0.1, 0.9, 0.4, 0.7, 0.2, 0.6, 0.3, 0.5];
        for (to, filter, wanted) in WANTED {
            let how = Resampling { filter: *filter, antialias: true, bytes: false };
            for (a, b) in resized(&line, *to, how).iter().zip(*wanted) {
                assert!((a - b).abs() < 2e-6, "{to} {filter:?}: {a} is not {b}");
            }
        }
    }

    /// Output size, filter, and `F.interpolate(x, size, mode, antialias=True)` of torch 2.15.
    const WANTED: &[(usize, Filter, &[f32])] = &[
        (3, Filter::Cubic, &[0.522319, 0.47985, 0.424316]),
        (5, Filter::Cubic, &[0.424454, 0.621856, 0.442193, 0.437328, 0.419038]),
        (
            12,
            Filter::Cubic,
            &[
                0.047369, 0.505882, 0.882639, 0.452083, 0.55, 0.652546, 0.240509, 0.3875, 0.584722, 0.329167, 0.388235,
                0.513158,
            ],
        ),
        (3, Filter::Triangle, &[0.534211, 0.47381, 0.421053]),
        (12, Filter::Triangle, &[0.1, 0.5, 0.816667, 0.483333, 0.55, 0.616667, 0.283333, 0.4, 0.55, 0.35, 0.4, 0.5]),
    ];
}
