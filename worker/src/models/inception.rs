//! Inception v3 (arXiv 1512.00567) as used by the Fréchet inception distance: 2048 features per image.
//!
//! Names are those of torchvision's `inception_v3`, structure and weights those of pytorch-fid's `fid_inception_v3`
//! (`pt_inception-2015-12-05`, ported from TensorFlow): average pooling ignores its padding, and the last block uses
//! max pooling. The classifier is not implemented.

use candle_core::{Device, Tensor};

use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::Conv2d;

/// Epsilon of the batch norms.
const EPS: f64 = 1e-3;

/// Side of the input images in pixels.
pub const SIDE: usize = 299;

/// Number of features per image.
pub const FEATURES: usize = 2048;

/// A convolution with its batch norm folded in, followed by ReLU.
struct Unit(Conv2d);

impl Unit {
    /// Loads a unit; `kernel` and `padding` are rows and columns.
    fn load(
        params: &Params<'_>,
        inputs: usize,
        outputs: usize,
        kernel: (usize, usize),
        stride: usize,
        padding: (usize, usize),
    ) -> Result<Self> {
        let weight = params.at("conv").tensor("weight", &[outputs, inputs, kernel.0, kernel.1])?;
        let norm = params.at("bn");
        let [scale, shift, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|name| norm.tensor(name, &[outputs]));
        // In evaluation a batch norm is an affine map per channel, so it is folded into the convolution.
        let scale = (scale? / (variance? + EPS)?.sqrt()?)?;
        let bias = (shift? - (mean? * &scale)?)?;
        let weight = weight.broadcast_mul(&scale.reshape((outputs, 1, 1, 1))?)?;
        Ok(Self(Conv2d::new(weight, bias, stride, padding)))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.0.forward(x)?.relu()?)
    }
}

/// Units applied in sequence.
type Chain = Vec<Unit>;

fn run(chain: &[Unit], x: &Tensor) -> Result<Tensor> {
    chain.iter().try_fold(x.clone(), |x, unit| unit.forward(&x))
}

/// The pooling of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pool {
    /// Mean over 3×3 pixels, ignoring those outside, as input of the last branch.
    Mean,
    /// Maximum over 3×3 pixels, as input of the last branch.
    Largest,
    /// Maximum over 3×3 pixels with stride 2, as the output of the last branch.
    Halving,
}

/// Branches whose outputs are concatenated.
struct Block {
    /// Chains, each followed by parallel units that all take its output; without any, the chain's output is used.
    branches: Vec<(Chain, Vec<Unit>)>,
    pool: Pool,
    after_pool: Option<Unit>,
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut outputs = Vec::new();
        for (chain, ends) in &self.branches {
            let inside = run(chain, x)?;
            if ends.is_empty() {
                outputs.push(inside);
            } else {
                for end in ends {
                    outputs.push(end.forward(&inside)?);
                }
            }
        }
        let pooled = match self.pool {
            Pool::Mean => mean_of_neighbours(x)?,
            // Values after ReLU are not negative, so padding with zeros does not change the maximum.
            Pool::Largest => around(x)?.max_pool2d_with_stride((3, 3), (1, 1))?,
            Pool::Halving => x.max_pool2d_with_stride((3, 3), (2, 2))?,
        };
        outputs.push(match &self.after_pool {
            Some(unit) => unit.forward(&pooled)?,
            None => pooled,
        });
        Ok(Tensor::cat(&outputs, 1)?)
    }
}

/// Pads with one pixel of zeros on every side.
fn around(x: &Tensor) -> Result<Tensor> {
    Ok(x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?)
}

/// The mean over 3×3 pixels, ignoring those outside.
fn mean_of_neighbours(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let count = |length: usize, i: usize| (length.min(i + 2) - i.saturating_sub(1)) as f32;
    let share: Vec<f32> =
        (0..height * width).map(|i| 9.0 / (count(height, i / width) * count(width, i % width))).collect();
    let share = Tensor::from_vec(share, (1, 1, height, width), x.device())?;
    Ok(around(x)?.avg_pool2d_with_stride((3, 3), (1, 1))?.broadcast_mul(&share)?)
}

/// The network up to its last pooling.
pub struct Inception {
    /// The units before the first pooling, and those between it and the second.
    stem: [Chain; 2],
    blocks: Vec<Block>,
}

impl Inception {
    /// Loads the network from the root of the checkpoint.
    pub fn load(params: &Params<'_>) -> Result<Self> {
        let unit = |name: &str, inputs, outputs, kernel, stride, padding| {
            Unit::load(&params.at(name), inputs, outputs, (kernel, kernel), stride, (padding, padding))
        };
        let stem = [
            vec![
                unit("Conv2d_1a_3x3", 3, 32, 3, 2, 0)?,
                unit("Conv2d_2a_3x3", 32, 32, 3, 1, 0)?,
                unit("Conv2d_2b_3x3", 32, 64, 3, 1, 1)?,
            ],
            vec![unit("Conv2d_3b_1x1", 64, 80, 1, 1, 0)?, unit("Conv2d_4a_3x3", 80, 192, 3, 1, 0)?],
        ];
        let at = |name: &str| params.at(name);
        let blocks = vec![
            fine(&at("Mixed_5b"), 192, 32)?,
            fine(&at("Mixed_5c"), 256, 64)?,
            fine(&at("Mixed_5d"), 288, 64)?,
            first_halving(&at("Mixed_6a"), 288)?,
            crossed(&at("Mixed_6b"), 128)?,
            crossed(&at("Mixed_6c"), 160)?,
            crossed(&at("Mixed_6d"), 160)?,
            crossed(&at("Mixed_6e"), 192)?,
            second_halving(&at("Mixed_7a"), 768)?,
            coarse(&at("Mixed_7b"), 1280, Pool::Mean)?,
            coarse(&at("Mixed_7c"), 2048, Pool::Largest)?,
        ];
        Ok(Self { stem, blocks })
    }

    /// Images `[b, 3, SIDE, SIDE]` in [-1, 1] → features `[b, FEATURES]`.
    pub fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = pixels.clone();
        for chain in &self.stem {
            x = run(chain, &x)?.max_pool2d_with_stride((3, 3), (2, 2))?;
        }
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x.flatten_from(2)?.mean(2)?)
    }

    /// The device of the weights.
    pub fn device(&self) -> &Device {
        self.stem[0][0].0.device()
    }
}

/// Loads `name` with a square kernel and padding that keeps the size.
fn same(params: &Params<'_>, name: &str, inputs: usize, outputs: usize, kernel: usize) -> Result<Unit> {
    let padding = kernel / 2;
    Unit::load(&params.at(name), inputs, outputs, (kernel, kernel), 1, (padding, padding))
}

/// Loads `name` with a 3×3 kernel of stride 2.
fn halved(params: &Params<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Unit> {
    Unit::load(&params.at(name), inputs, outputs, (3, 3), 2, (0, 0))
}

/// Loads `name` with a kernel of one row.
fn row(params: &Params<'_>, name: &str, inputs: usize, outputs: usize, length: usize) -> Result<Unit> {
    Unit::load(&params.at(name), inputs, outputs, (1, length), 1, (0, length / 2))
}

/// Loads `name` with a kernel of one column.
fn column(params: &Params<'_>, name: &str, inputs: usize, outputs: usize, length: usize) -> Result<Unit> {
    Unit::load(&params.at(name), inputs, outputs, (length, 1), 1, (length / 2, 0))
}

/// torchvision's `InceptionA`.
fn fine(p: &Params<'_>, inputs: usize, pool: usize) -> Result<Block> {
    Ok(Block {
        branches: vec![
            (vec![same(p, "branch1x1", inputs, 64, 1)?], vec![]),
            (vec![same(p, "branch5x5_1", inputs, 48, 1)?, same(p, "branch5x5_2", 48, 64, 5)?], vec![]),
            (
                vec![
                    same(p, "branch3x3dbl_1", inputs, 64, 1)?,
                    same(p, "branch3x3dbl_2", 64, 96, 3)?,
                    same(p, "branch3x3dbl_3", 96, 96, 3)?,
                ],
                vec![],
            ),
        ],
        pool: Pool::Mean,
        after_pool: Some(same(p, "branch_pool", inputs, pool, 1)?),
    })
}

/// torchvision's `InceptionB`.
fn first_halving(p: &Params<'_>, inputs: usize) -> Result<Block> {
    Ok(Block {
        branches: vec![
            (vec![halved(p, "branch3x3", inputs, 384)?], vec![]),
            (
                vec![
                    same(p, "branch3x3dbl_1", inputs, 64, 1)?,
                    same(p, "branch3x3dbl_2", 64, 96, 3)?,
                    halved(p, "branch3x3dbl_3", 96, 96)?,
                ],
                vec![],
            ),
        ],
        pool: Pool::Halving,
        after_pool: None,
    })
}

/// torchvision's `InceptionC` with `inside` channels in its 7×7 branches.
fn crossed(p: &Params<'_>, inside: usize) -> Result<Block> {
    const CHANNELS: usize = 768;
    Ok(Block {
        branches: vec![
            (vec![same(p, "branch1x1", CHANNELS, 192, 1)?], vec![]),
            (
                vec![
                    same(p, "branch7x7_1", CHANNELS, inside, 1)?,
                    row(p, "branch7x7_2", inside, inside, 7)?,
                    column(p, "branch7x7_3", inside, 192, 7)?,
                ],
                vec![],
            ),
            (
                vec![
                    same(p, "branch7x7dbl_1", CHANNELS, inside, 1)?,
                    column(p, "branch7x7dbl_2", inside, inside, 7)?,
                    row(p, "branch7x7dbl_3", inside, inside, 7)?,
                    column(p, "branch7x7dbl_4", inside, inside, 7)?,
                    row(p, "branch7x7dbl_5", inside, 192, 7)?,
                ],
                vec![],
            ),
        ],
        pool: Pool::Mean,
        after_pool: Some(same(p, "branch_pool", CHANNELS, 192, 1)?),
    })
}

/// torchvision's `InceptionD`.
fn second_halving(p: &Params<'_>, inputs: usize) -> Result<Block> {
    Ok(Block {
        branches: vec![
            (vec![same(p, "branch3x3_1", inputs, 192, 1)?, halved(p, "branch3x3_2", 192, 320)?], vec![]),
            (
                vec![
                    same(p, "branch7x7x3_1", inputs, 192, 1)?,
                    row(p, "branch7x7x3_2", 192, 192, 7)?,
                    column(p, "branch7x7x3_3", 192, 192, 7)?,
                    halved(p, "branch7x7x3_4", 192, 192)?,
                ],
                vec![],
            ),
        ],
        pool: Pool::Halving,
        after_pool: None,
    })
}

/// torchvision's `InceptionE`.
fn coarse(p: &Params<'_>, inputs: usize, pool: Pool) -> Result<Block> {
    let ends =
        |a: &str, b: &str| Ok::<_, crate::files::ModelError>(vec![row(p, a, 384, 384, 3)?, column(p, b, 384, 384, 3)?]);
    Ok(Block {
        branches: vec![
            (vec![same(p, "branch1x1", inputs, 320, 1)?], vec![]),
            (vec![same(p, "branch3x3_1", inputs, 384, 1)?], ends("branch3x3_2a", "branch3x3_2b")?),
            (
                vec![same(p, "branch3x3dbl_1", inputs, 448, 1)?, same(p, "branch3x3dbl_2", 448, 384, 3)?],
                ends("branch3x3dbl_3a", "branch3x3dbl_3b")?,
            ),
        ],
        pool,
        after_pool: Some(same(p, "branch_pool", inputs, 192, 1)?),
    })
}
