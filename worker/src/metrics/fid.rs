//! Fréchet inception distance (Heusel et al., arXiv 1706.08500) between two sets of pictures, as in pytorch-fid.
//!
//! Weights: one safetensors file made from `pt_inception-2015-12-05-6726825d.pth`: `python -c "import torch,
//! safetensors.torch as s; s.save_file({k: v for k, v in torch.load('pt_inception-2015-12-05-6726825d.pth').items()
//! if v.is_floating_point()}, 'inception.safetensors')"`

use std::path::Path;

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::bicubic::{Filter, Resampling, resize};
use super::frechet::{Moments, distance};
use super::{Set, SetMetric};
use crate::files::error::{ModelError, Result};
use crate::files::weights::Weights;
use crate::models::inception::{FEATURES, Inception, SIDE};

/// How to get the file.
const HINT: &str = "make it from pytorch-fid's weights with Python: `import torch, safetensors.torch as s; s.save_file({k: v for \
                    k, v in torch.load('pt_inception-2015-12-05-6726825d.pth').items() if v.is_floating_point()}, \
                    'inception.safetensors')`";

/// Fréchet distance between normal distributions fitted to the features of two sets: 0 for equal sets. It decreases
/// with the number of pictures, so compare it only between sets of one size; below a few thousand pictures it is only
/// a rough guide.
pub struct Fid {
    inception: Inception,
    sets: [Moments; 2],
}

impl Fid {
    /// Loads Inception from a weight file.
    pub fn load(file: &Path, device: &Device) -> Result<Self> {
        if !file.is_file() {
            return Err(ModelError::Missing { path: file.into(), hint: HINT.into() });
        }
        let inception = Inception::load(&Weights::open_file(file, device)?.root())?;
        Ok(Self { inception, sets: [(); 2].map(|()| Moments::new(FEATURES)) })
    }

    /// Features `[b, FEATURES]` of pictures `[b, 3, h, w]` in [0, 1].
    pub fn features(&self, pictures: &Tensor) -> Result<Tensor> {
        let how = Resampling { filter: Filter::Triangle, antialias: false, bytes: false };
        let pixels = ((resize(&pictures.to_device(&Device::Cpu)?, SIDE, SIDE, how)? * 2.0)? - 1.0)?;
        self.inception.forward(&pixels.to_device(self.inception.device())?)
    }
}

impl SetMetric for Fid {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: "fid".into(),
            direction: Direction::Minimize,
            unit: "1".into(),
            description: "Fréchet inception distance of two sets of pictures, 0 for equal ones".into(),
        }
    }

    fn add(&mut self, set: Set, pictures: &Tensor) -> Result<()> {
        let features = self.features(pictures)?;
        self.sets[set as usize].add(&features)
    }

    fn value(&self) -> Result<f64> {
        let [scored, reference] = &self.sets;
        distance(scored, reference)
    }
}
