//! The decoder of AutoencoderKL (arXiv 2112.10752), from latents to images: diffusers' `AutoencoderKL`.
//!
//! Weights: `stabilityai/sd-vae-ft-ema`, or folder `vae` of a PixArt model. The encoder is not read.

use candle_core::Tensor;

use super::vae_blocks::{EPS, PixelAttention, ResnetBlock, UpBlock};
use super::vae_tiles::Tiles;
use crate::files::config::Config;
use crate::files::error::Result;
use crate::files::fields;
use crate::files::weights::{WeightSize, Weights};
use crate::layers::{Conv2d, GroupNorm};

/// The settings in `vae/config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeConfig {
    /// Channels of the image.
    pub out_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Channels of each level, full resolution first.
    pub channels: Vec<usize>,
    /// Resnet blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Number of groups of the norms.
    pub groups: usize,
    /// Side of the native image size in pixels, and of a tile in tiled decoding.
    pub sample_size: usize,
    /// Divisor of the latents.
    pub scaling_factor: f64,
    /// Added to the latents after the division; 0 for pipelines that do not use it.
    pub shift_factor: f64,
    /// Whether the decoder starts with a 1×1 convolution.
    pub post_quant_conv: bool,
    /// Whether the middle block has attention.
    pub mid_attention: bool,
}

impl VaeConfig {
    /// Reads and checks a config. `shifts` says whether the pipeline adds the shift factor to latents.
    pub fn read(config: &Config, shifts: bool) -> Result<Self> {
        let own = config.choice("_class_name", "AutoencoderKL", &["AutoencoderKL"])?;
        fields::check(config, own)?;
        let channels = config.sizes("block_out_channels")?;
        let types = config.texts("up_block_types")?;
        if let Some(other) = types.iter().find(|name| *name != "UpDecoderBlock2D") {
            return Err(config.unsupported("up_block_types", other, "UpDecoderBlock2D"));
        }
        if channels.is_empty() || types.len() != channels.len() {
            let expected = format!("one block per value of block_out_channels ({})", channels.len());
            return Err(config.wrong("up_block_types", expected, types.len().to_string()));
        }
        let groups = config.size_or("norm_num_groups", 32)?;
        if let Some(odd) = channels.iter().find(|c| !c.is_multiple_of(groups)) {
            return Err(config.wrong(
                "block_out_channels",
                format!("multiples of norm_num_groups = {groups}"),
                odd.to_string(),
            ));
        }
        let latent_channels = config.size_or("latent_channels", 4)?;
        let scaling_factor = config.number_or("scaling_factor", 0.18215)?;
        if !scaling_factor.is_normal() {
            return Err(config.wrong("scaling_factor", "a number that is not 0", scaling_factor.to_string()));
        }
        let shift_factor = match config.number_opt("shift_factor")? {
            _ if !shifts => 0.0,
            Some(shift) if shift.is_finite() => shift,
            found => {
                let found = found.map_or("nothing".into(), |shift| shift.to_string());
                return Err(config.wrong("shift_factor", "a number, which this pipeline adds to latents", found));
            }
        };
        Ok(Self {
            out_channels: config.size_or("out_channels", 3)?,
            latent_channels,
            channels,
            layers_per_block: config.size_or("layers_per_block", 1)?,
            groups,
            sample_size: config.size_or("sample_size", 32)?,
            scaling_factor,
            shift_factor,
            post_quant_conv: config.flag_or("use_post_quant_conv", true)?,
            mid_attention: config.flag_or("mid_block_add_attention", true)?,
        })
    }

    /// Pixels per latent row or column.
    pub fn scale(&self) -> usize {
        1 << (self.channels.len() - 1)
    }

    /// Multiply-accumulates to decode one image of `height × width` latent pixels, without norms.
    pub fn decode_macs(&self, height: usize, width: usize) -> u64 {
        let mut pixels = (height * width) as u64;
        let conv = |pixels: u64, inputs: usize, outputs: usize, kernel: usize| {
            pixels * (inputs * outputs * kernel * kernel) as u64
        };
        let resnet = |pixels: u64, inputs: usize, outputs: usize| {
            let shortcut = if inputs == outputs { 0 } else { conv(pixels, inputs, outputs, 1) };
            conv(pixels, inputs, outputs, 3) + conv(pixels, outputs, outputs, 3) + shortcut
        };
        let mut top = self.channels.last().copied().unwrap_or(1);
        let mut macs = conv(pixels, self.latent_channels, top, 3) + 2 * resnet(pixels, top, top);
        if self.post_quant_conv {
            macs += conv(pixels, self.latent_channels, self.latent_channels, 1);
        }
        if self.mid_attention {
            macs += conv(pixels, top, 4 * top, 1) + 2 * pixels * pixels * top as u64;
        }
        for (level, &channels) in self.channels.iter().rev().enumerate() {
            macs += resnet(pixels, top, channels) + self.layers_per_block as u64 * resnet(pixels, channels, channels);
            top = channels;
            if level + 1 < self.channels.len() {
                pixels *= 4;
                macs += conv(pixels, channels, channels, 3);
            }
        }
        macs + conv(pixels, top, self.out_channels, 3)
    }
}

impl VaeConfig {
    /// Most values held at once while decoding one image of `height × width` latent pixels.
    fn decode_values(&self, height: usize, width: usize) -> u64 {
        let mut pixels = (height * width) as u64;
        let mut inputs = self.channels.last().copied().unwrap_or(1) as u64;
        // A resnet block holds its input, its inner values, its norm and its output.
        let mut peak = pixels * inputs * if self.mid_attention { 7 } else { 5 };
        for (level, &channels) in self.channels.iter().rev().enumerate() {
            let channels = channels as u64;
            // An up block's input is held until the block ends.
            let first = 2 * inputs + 2 * channels;
            peak = peak.max(pixels * first.max(inputs + 4 * channels));
            if level + 1 < self.channels.len() {
                let before = pixels * (inputs + channels);
                pixels *= 4;
                peak = peak.max(before + 2 * pixels * channels);
            }
            inputs = channels;
        }
        peak
    }
}

/// The VAE decoder.
pub struct VaeDecoder {
    config: VaeConfig,
    tiles: Option<Tiles>,
    weight_size: WeightSize,
    post_quant_conv: Option<Conv2d>,
    conv_in: Conv2d,
    mid_resnets: [ResnetBlock; 2],
    mid_attention: Option<PixelAttention>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl VaeDecoder {
    /// Loads the decoder.
    pub fn load(weights: &Weights, config: VaeConfig) -> Result<Self> {
        let (params, groups, latent) = (weights.root(), config.groups, config.latent_channels);
        let decoder = params.at("decoder");
        let reversed: Vec<usize> = config.channels.iter().rev().copied().collect();
        let (top, last) = (reversed[0], reversed[reversed.len() - 1]);
        let mid = decoder.at("mid_block");
        let up_block = |i: usize| {
            let inputs = if i == 0 { top } else { reversed[i - 1] };
            let params = decoder.at(format_args!("up_blocks.{i}"));
            let layers = config.layers_per_block + 1;
            UpBlock::load(&params, groups, inputs, reversed[i], layers, i + 1 < reversed.len())
        };
        Ok(Self {
            weight_size: weights.size(|name| name.starts_with("decoder.") || name.starts_with("post_quant_conv.")),
            post_quant_conv: if config.post_quant_conv {
                Some(Conv2d::load_same(&params.at("post_quant_conv"), latent, latent, 1)?)
            } else {
                None
            },
            conv_in: Conv2d::load_same(&decoder.at("conv_in"), latent, top, 3)?,
            mid_resnets: [
                ResnetBlock::load(&mid.at("resnets.0"), groups, top, top)?,
                ResnetBlock::load(&mid.at("resnets.1"), groups, top, top)?,
            ],
            mid_attention: if config.mid_attention {
                Some(PixelAttention::load(&mid.at("attentions.0"), groups, top)?)
            } else {
                None
            },
            up_blocks: (0..reversed.len()).map(up_block).collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::load(&decoder.at("conv_norm_out"), groups, last, EPS)?,
            conv_out: Conv2d::load_same(&decoder.at("conv_out"), last, config.out_channels, 3)?,
            tiles: None,
            config,
        })
    }

    /// Decodes images larger than the native size in tiles, which takes less memory and changes the images slightly.
    #[must_use]
    pub fn tiled(self) -> Self {
        let tiles = Some(Tiles::new(self.config.sample_size, self.config.scale()));
        Self { tiles, ..self }
    }

    /// Multiply-accumulates to decode one image of `height × width` latent pixels, without norms.
    pub fn decode_macs(&self, height: usize, width: usize) -> u64 {
        match self.tiles.filter(|tiles| tiles.cut(height, width)) {
            None => self.config.decode_macs(height, width),
            Some(tiles) => tiles
                .along(height)
                .flat_map(|(_, tall)| tiles.along(width).map(move |(_, wide)| (tall, wide)))
                .map(|(tall, wide)| self.config.decode_macs(tall, wide))
                .sum(),
        }
    }

    /// Peak memory in bytes of decoding one image of `height × width` latent pixels, without weights.
    pub fn decode_bytes(&self, height: usize, width: usize) -> u64 {
        let picture = 3 * (height * width * self.config.scale().pow(2)) as u64;
        match self.tiles.filter(|tiles| tiles.cut(height, width)) {
            None => 4 * self.config.decode_values(height, width),
            Some(tiles) => {
                let largest = |side: usize| tiles.along(side).map(|(_, length)| length).max().unwrap_or(side);
                // Two rows of tiles and the image are held while a tile is decoded.
                4 * (self.config.decode_values(largest(height), largest(width)) + 3 * picture)
            }
        }
    }

    /// The config of the decoder.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Size of the decoder's weights.
    pub fn weight_size(&self) -> WeightSize {
        self.weight_size
    }

    /// Decodes latents `[b, c, h, w]` to images `[b, 3, H, W]` with values of about -1 to 1.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let scaled = latents.affine(1.0 / self.config.scaling_factor, self.config.shift_factor)?;
        let (_, _, height, width) = scaled.dims4()?;
        match self.tiles.filter(|tiles| tiles.cut(height, width)) {
            Some(tiles) => tiles.decode(&scaled, |tile| self.decode_scaled(tile)),
            None => self.decode_scaled(&scaled),
        }
    }

    fn decode_scaled(&self, scaled: &Tensor) -> Result<Tensor> {
        let mut x = match &self.post_quant_conv {
            Some(conv) => conv.forward(scaled)?,
            None => scaled.clone(),
        };
        x = self.mid_resnets[0].forward(&self.conv_in.forward(&x)?)?;
        if let Some(attention) = &self.mid_attention {
            x = attention.forward(&x)?;
        }
        x = self.mid_resnets[1].forward(&x)?;
        for block in &self.up_blocks {
            x = block.forward(&x)?;
        }
        Ok(self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)?)
    }
}
