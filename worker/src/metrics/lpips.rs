//! Learned perceptual distance (Zhang et al., arXiv 1801.03924, version 0.1) to the picture of the uncached run.
//!
//! Weights: one safetensors file with the state of PyPI's `lpips.LPIPS`, trunk and linear layers, for `alex` or `vgg`:
//! `python -c "import lpips, safetensors.torch as s; s.save_model(lpips.LPIPS(net='alex'), 'lpips_alex.safetensors')"`

use std::path::Path;

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::baseline::Baseline;
use super::{Against, Metric};
use crate::files::error::{ModelError, Result};
use crate::files::weights::{Params, Weights};
use crate::layers::Conv2d;

/// How to get the file.
const HINT: &str = "make it with Python: `import lpips, safetensors.torch as s; \
                    s.save_model(lpips.LPIPS(net='alex'), 'lpips_alex.safetensors')`";
/// Shift and scale of each channel: a trunk takes values in [-1, 1] minus the shift, divided by the scale.
const SCALING: [[f32; 3]; 2] = [[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]];
/// Keeps the norm of a pixel's features from being zero.
const EPS: f64 = 1e-10;

/// A convolution followed by ReLU: index in torchvision's `features`, inputs, outputs, kernel, stride, padding.
type Layer = (usize, usize, usize, usize, usize, usize);

/// A network whose features are compared.
struct Trunk {
    name: &'static str,
    /// Side and stride of the pooling between slices.
    pool: (usize, usize),
    /// Whether each slice is preceded by pooling.
    pooled: [bool; 5],
    slices: [&'static [Layer]; 5],
    /// Side of the smallest picture it takes, in pixels.
    least: usize,
}

/// torchvision's `alexnet`.
const ALEX: Trunk = Trunk {
    name: "lpips_alex",
    pool: (3, 2),
    pooled: [false, true, true, false, false],
    slices: [
        &[(0, 3, 64, 11, 4, 2)],
        &[(3, 64, 192, 5, 1, 2)],
        &[(6, 192, 384, 3, 1, 1)],
        &[(8, 384, 256, 3, 1, 1)],
        &[(10, 256, 256, 3, 1, 1)],
    ],
    least: 31,
};

/// torchvision's `vgg16`.
const VGG: Trunk = Trunk {
    name: "lpips_vgg",
    pool: (2, 2),
    pooled: [false, true, true, true, true],
    slices: [
        &[(0, 3, 64, 3, 1, 1), (2, 64, 64, 3, 1, 1)],
        &[(5, 64, 128, 3, 1, 1), (7, 128, 128, 3, 1, 1)],
        &[(10, 128, 256, 3, 1, 1), (12, 256, 256, 3, 1, 1), (14, 256, 256, 3, 1, 1)],
        &[(17, 256, 512, 3, 1, 1), (19, 512, 512, 3, 1, 1), (21, 512, 512, 3, 1, 1)],
        &[(24, 512, 512, 3, 1, 1), (26, 512, 512, 3, 1, 1), (28, 512, 512, 3, 1, 1)],
    ],
    least: 16,
};

/// A slice of the trunk and the weights of its output channels.
struct Slice {
    convolutions: Vec<Conv2d>,
    /// Weights of the channels, `[1, channels, 1, 1]`.
    weights: Tensor,
}

/// Distance between the features of two pictures: 0 for identical pictures.
pub struct Lpips {
    trunk: &'static Trunk,
    slices: Vec<Slice>,
    baseline: Baseline,
    device: Device,
}

impl Lpips {
    /// Loads a weight file; its tensors show whether the trunk is AlexNet or VGG.
    pub fn load(file: &Path, device: &Device) -> Result<Self> {
        if !file.is_file() {
            return Err(ModelError::Missing { path: file.into(), hint: HINT.into() });
        }
        let weights = Weights::open_file(file, device)?;
        let params = weights.root();
        // AlexNet's first slice has one convolution, VGG's has two.
        let trunk = if params.has("net.slice1.2.weight") { &VGG } else { &ALEX };
        let slices = (0..5).map(|i| Self::slice(&params, trunk, i)).collect::<Result<_>>()?;
        Ok(Self { trunk, slices, baseline: Baseline::default(), device: device.clone() })
    }

    fn slice(params: &Params<'_>, trunk: &Trunk, i: usize) -> Result<Slice> {
        let net = params.at(format_args!("net.slice{}", i + 1));
        let convolutions = trunk.slices[i]
            .iter()
            .map(|&(number, inputs, outputs, kernel, stride, padding)| {
                Conv2d::load(&net.at(number), inputs, outputs, kernel, stride, padding, true)
            })
            .collect::<Result<_>>()?;
        let channels = trunk.slices[i].last().map_or(0, |layer| layer.2);
        let weights = params.at(format_args!("lin{i}.model.1")).tensor("weight", &[1, channels, 1, 1])?;
        Ok(Slice { convolutions, weights })
    }

    /// The distance between the two pictures of `[2, 3, h, w]`.
    fn distance(&self, pair: &Tensor) -> Result<f64> {
        let [shift, scale] = SCALING.map(|values| Tensor::from_slice(&values, (1, 3, 1, 1), &self.device));
        let mut x = ((pair.to_device(&self.device)? * 2.0)? - 1.0)?.broadcast_sub(&shift?)?.broadcast_div(&scale?)?;
        let mut total = 0.0;
        for (slice, &pooled) in self.slices.iter().zip(&self.trunk.pooled) {
            if pooled {
                let (side, stride) = self.trunk.pool;
                x = x.max_pool2d_with_stride((side, side), (stride, stride))?;
            }
            for convolution in &slice.convolutions {
                x = convolution.forward(&x)?.relu()?;
            }
            let length = (x.sqr()?.sum_keepdim(1)?.sqrt()? + EPS)?;
            let units = x.broadcast_div(&length)?;
            let squares = (units.narrow(0, 0, 1)? - units.narrow(0, 1, 1)?)?.sqr()?;
            let weighted = squares.broadcast_mul(&slice.weights)?.sum(1)?.mean_all()?;
            total += f64::from(weighted.to_scalar::<f32>()?);
        }
        Ok(total)
    }
}

impl Metric for Lpips {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: self.trunk.name.into(),
            direction: Direction::Minimize,
            unit: "1".into(),
            description: "learned perceptual distance to the uncached picture, 0 for identical ones".into(),
        }
    }

    fn against(&self) -> Against {
        Against::Uncached
    }

    fn prepare(&mut self, _: &[&str], baseline: &[Tensor]) -> Result<()> {
        self.baseline.take(baseline)
    }

    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        let reference = self.baseline.of(self.trunk.name, first, pictures)?;
        let (batch, _, height, width) = pictures.dims4()?;
        if height.min(width) < self.trunk.least {
            return Err(ModelError::Input(format!(
                "{} needs pictures of at least {1}x{1} pixels, got {height}x{width}",
                self.trunk.name, self.trunk.least
            )));
        }
        let pictures = pictures.to_device(&Device::Cpu)?;
        // One pair at a time: the first features of a whole batch of large pictures would take gigabytes.
        (0..batch)
            .map(|i| self.distance(&Tensor::cat(&[pictures.narrow(0, i, 1)?, reference.narrow(0, i, 1)?], 0)?))
            .collect()
    }
}
