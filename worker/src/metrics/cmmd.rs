//! CMMD (Jayasumana et al., arXiv 2401.09603): maximum mean discrepancy between the CLIP embeddings of two sets of
//! pictures.
//!
//! Weights: `openai/clip-vit-large-patch14-336`; another CLIP folder gives other values. Pictures that are not square
//! are center-cropped first, as in the authors' program.

use std::path::Path;

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::clip_score::ClipScore;
use super::{Set, SetMetric};
use crate::files::error::{ModelError, Result};

/// Bandwidth of the Gaussian kernel.
const SIGMA: f64 = 10.0;
/// Scale of the values, for readability, as in the authors' program.
const SCALE: f64 = 1000.0;

/// Squared discrepancy by the minimum-variance (biased) estimator: never below 0, and 0 for equal sets.
pub struct Cmmd {
    clip: ClipScore,
    sets: [Vec<Vec<f64>>; 2],
}

impl Cmmd {
    /// Loads a CLIP folder.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        Ok(Self { clip: ClipScore::load(folder, device)?, sets: [vec![], vec![]] })
    }
}

impl SetMetric for Cmmd {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: "cmmd".into(),
            direction: Direction::Minimize,
            unit: "1".into(),
            description: "maximum mean discrepancy of CLIP embeddings of two sets of pictures, 0 for equal ones".into(),
        }
    }

    fn add(&mut self, set: Set, pictures: &Tensor) -> Result<()> {
        let (_, _, height, width) = pictures.dims4()?;
        let side = height.min(width);
        let middle = pictures.narrow(2, (height - side) / 2, side)?.narrow(3, (width - side) / 2, side)?;
        let embeddings = self.clip.embed_pictures(&middle)?.to_vec2::<f32>()?;
        let embeddings = embeddings.into_iter().map(|row| row.into_iter().map(f64::from).collect());
        self.sets[set as usize].extend(embeddings);
        Ok(())
    }

    fn value(&self) -> Result<f64> {
        let [scored, reference] = &self.sets;
        if scored.is_empty() || reference.is_empty() {
            return Err(ModelError::Input("cmmd compares two sets of pictures, but one is empty".into()));
        }
        let within = mean_kernel(scored, scored) + mean_kernel(reference, reference);
        Ok(SCALE * (within - 2.0 * mean_kernel(scored, reference)))
    }
}

/// Mean of the kernel over all pairs, minus one: embeddings are so close that the mean is barely below one.
fn mean_kernel(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    let kernel = |x: &[f64], y: &[f64]| {
        let distance: f64 = x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum();
        (-distance / (2.0 * SIGMA * SIGMA)).exp_m1()
    };
    let total: f64 = a.iter().flat_map(|x| b.iter().map(move |y| kernel(x, y))).sum();
    total / (a.len() * b.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_less_than_one_by_the_distance() {
        let (a, b) = (vec![vec![1.0, 0.0]], vec![vec![0.0, 1.0], vec![1.0, 0.0]]);
        let wanted = ((-2.0f64 / 200.0).exp() - 1.0) / 2.0;
        assert!((mean_kernel(&a, &b) - wanted).abs() < 1e-15);
        assert_eq!(mean_kernel(&a, &a), 0.0);
    }
}
