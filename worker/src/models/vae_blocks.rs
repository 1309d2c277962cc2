//! The blocks of AutoencoderKL's decoder, over tensors `[b, c, h, w]`.

use candle_core::Tensor;

use crate::files::error::Result;
use crate::files::weights::Params;
use crate::layers::{AttentionBias, Conv2d, GroupNorm, Linear, attention};

/// Epsilon of every norm in the decoder.
pub(super) const EPS: f64 = 1e-6;

/// Two convolutions, each preceded by group norm and SiLU, and a shortcut.
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(super) fn load(params: &Params<'_>, groups: usize, inputs: usize, outputs: usize) -> Result<Self> {
        let shortcut = if inputs == outputs {
            None
        } else {
            Some(Conv2d::load_same(&params.at("conv_shortcut"), inputs, outputs, 1)?)
        };
        Ok(Self {
            norm1: GroupNorm::load(&params.at("norm1"), groups, inputs, EPS)?,
            conv1: Conv2d::load_same(&params.at("conv1"), inputs, outputs, 3)?,
            norm2: GroupNorm::load(&params.at("norm2"), groups, outputs, EPS)?,
            conv2: Conv2d::load_same(&params.at("conv2"), outputs, outputs, 3)?,
            shortcut,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inside = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        let inside = self.conv2.forward(&self.norm2.forward_silu(&inside)?)?;
        Ok(match &self.shortcut {
            Some(shortcut) => (shortcut.forward(x)? + inside)?,
            None => (x + inside)?,
        })
    }
}

/// Self-attention over all pixels with one head.
pub(super) struct PixelAttention {
    norm: GroupNorm,
    qkv: Linear,
    out: Linear,
    channels: usize,
}

impl PixelAttention {
    pub(super) fn load(params: &Params<'_>, groups: usize, channels: usize) -> Result<Self> {
        // Names in early releases of diffusers.
        let (names, out) = if params.has("to_q.weight") {
            (["to_q", "to_k", "to_v"], "to_out.0")
        } else {
            (["query", "key", "value"], "proj_attn")
        };
        Ok(Self {
            norm: GroupNorm::load(&params.at("group_norm"), groups, channels, EPS)?,
            qkv: Linear::load_stacked(params, &names, channels, channels, true)?,
            out: Linear::load(&params.at(out), channels, channels, true)?,
            channels,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let channels = self.channels;
        let tokens = self.norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let qkv = self.qkv.forward(&tokens)?;
        let [q, k, v] = [0, 1, 2].map(|i| qkv.narrow(2, i * channels, channels));
        let scale = 1.0 / (channels as f64).sqrt();
        let out = self.out.forward(&attention(&q?, &k?, &v?, 1, scale, &AttentionBias::None)?)?;
        Ok((x + out.transpose(1, 2)?.reshape(x.shape())?)?)
    }
}

/// Resnet blocks, then upsampling to twice the size if the block has an upsampler.
pub(super) struct UpBlock {
    resnets: Vec<ResnetBlock>,
    upsampler: Option<Conv2d>,
}

impl UpBlock {
    pub(super) fn load(
        params: &Params<'_>,
        groups: usize,
        inputs: usize,
        outputs: usize,
        layers: usize,
        upsample: bool,
    ) -> Result<Self> {
        let resnet = |i: usize| {
            let params = params.at(format_args!("resnets.{i}"));
            ResnetBlock::load(&params, groups, if i == 0 { inputs } else { outputs }, outputs)
        };
        Ok(Self {
            resnets: (0..layers).map(resnet).collect::<Result<_>>()?,
            upsampler: if upsample {
                Some(Conv2d::load_same(&params.at("upsamplers.0.conv"), outputs, outputs, 3)?)
            } else {
                None
            },
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for resnet in &self.resnets {
            x = resnet.forward(&x)?;
        }
        if let Some(conv) = &self.upsampler {
            let (_, _, height, width) = x.dims4()?;
            x = conv.forward(&x.upsample_nearest2d(2 * height, 2 * width)?)?;
        }
        Ok(x)
    }
}
