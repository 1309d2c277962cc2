//! Structural similarity (Wang et al., 2004) to the picture of the uncached run.
//!
//! As in scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
//! data_range=1.0)` and the authors' program: a Gaussian window of 11 pixels, each channel separately, and the mean
//! over the positions where the window lies inside the picture. torchmetrics gives the same values there, but also
//! counts positions at the border, where it mirrors the picture.

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::baseline::Baseline;
use super::{Against, Metric};
use crate::files::error::{ModelError, Result};

/// Side of the window in pixels.
const WINDOW: usize = 11;
/// Standard deviation of the window in pixels.
const SIGMA: f64 = 1.5;
/// (k₁ L)² and (k₂ L)² with k₁ = 0.01, k₂ = 0.03 and the range L = 1.
const STABILISERS: [f64; 2] = [1e-4, 9e-4];

/// Mean structural similarity of pictures in [0, 1]; 1 for identical pictures.
#[derive(Debug, Default)]
pub struct Ssim {
    baseline: Baseline,
}

impl Metric for Ssim {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: "ssim".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "structural similarity to the uncached picture, 1 for identical ones".into(),
        }
    }

    fn against(&self) -> Against {
        Against::Uncached
    }

    fn prepare(&mut self, _: &[&str], baseline: &[Tensor]) -> Result<()> {
        self.baseline.take(baseline)
    }

    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        let reference = self.baseline.of("ssim", first, pictures)?;
        let (batch, channels, height, width) = pictures.dims4()?;
        if height < WINDOW || width < WINDOW {
            return Err(ModelError::Input(format!(
                "ssim needs pictures of at least {WINDOW}x{WINDOW} pixels, got {height}x{width}"
            )));
        }
        let values = |x: &Tensor| x.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>();
        let (a, b) = (values(pictures)?, values(&reference)?);
        let planes: Vec<f64> = a
            .chunks_exact(height * width)
            .zip(b.chunks_exact(height * width))
            .map(|(a, b)| similarity(a, b, width))
            .collect();
        debug_assert_eq!(planes.len(), batch * channels);
        Ok(planes.chunks_exact(channels).map(|planes| planes.iter().sum::<f64>() / channels as f64).collect())
    }
}

/// Mean similarity of two planes with rows of `width` pixels.
fn similarity(a: &[f32], b: &[f32], width: usize) -> f64 {
    let product = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).collect();
    let plain = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect();
    let [mean_a, mean_b, aa, bb, ab] =
        [plain(a), plain(b), product(a, a), product(b, b), product(a, b)].map(|plane: Vec<f64>| smooth(&plane, width));
    let [c1, c2] = STABILISERS;
    let total: f64 = (0..mean_a.len())
        .map(|i| {
            let (ma, mb) = (mean_a[i], mean_b[i]);
            let (va, vb, covariance) = ((aa[i] - ma * ma).max(0.0), (bb[i] - mb * mb).max(0.0), ab[i] - ma * mb);
            (2.0 * ma * mb + c1) * (2.0 * covariance + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
        })
        .sum();
    total / mean_a.len() as f64
}

/// The weighted mean of the plane under the window, at every position where the window lies inside it.
fn smooth(plane: &[f64], width: usize) -> Vec<f64> {
    let centre = (WINDOW / 2) as f64;
    let mut window: [f64; WINDOW] = std::array::from_fn(|i| (-0.5 * ((i as f64 - centre) / SIGMA).powi(2)).exp());
    let total: f64 = window.iter().sum();
    window.iter_mut().for_each(|weight| *weight /= total);
    let narrow = width + 1 - WINDOW;
    let rows: Vec<f64> = plane
        .chunks_exact(width)
        .flat_map(|row| row.windows(WINDOW).map(|part| part.iter().zip(&window).map(|(x, w)| x * w).sum::<f64>()))
        .collect();
    let height = rows.len() / narrow + 1 - WINDOW;
    let mut out = vec![0.0; height * narrow];
    for (y, line) in out.chunks_exact_mut(narrow).enumerate() {
        for (k, weight) in window.iter().enumerate() {
            let row = &rows[(y + k) * narrow..][..narrow];
            line.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_pictures_are_wholly_similar_nan_stays_visible_and_small_ones_are_refused() {
        let values: Vec<f32> = (0..2 * 3 * 12 * 16).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
        let batch = Tensor::from_vec(values, (2, 3, 12, 16), &Device::Cpu).unwrap();
        let mut ssim = Ssim::default();
        assert!(ssim.measure(0, &batch).is_err());
        ssim.prepare(&["a", "b"], std::slice::from_ref(&batch)).unwrap();
        for value in ssim.measure(0, &batch).unwrap() {
            assert!((value - 1.0).abs() < 1e-12);
        }
        let nan = (&batch * f64::NAN).unwrap();
        assert!(ssim.measure(0, &nan).unwrap()[0].is_nan());
        let other = batch.narrow(3, 0, 15).unwrap();
        assert!(ssim.measure(0, &other).unwrap_err().to_string().contains("same size"));
        let small = batch.narrow(3, 0, 10).unwrap();
        ssim.prepare(&["a", "b"], std::slice::from_ref(&small)).unwrap();
        assert!(ssim.measure(0, &small).unwrap_err().to_string().contains("at least 11x11"));
    }
}
