//! Pictures into what CLIP takes, by `preprocessor_config.json`: resize, crop to the centre, normalise.

use candle_core::{Device, Tensor};

use super::bicubic::{Filter, resize};
use crate::files::config::Config;
use crate::files::error::Result;

/// How far the picture is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// To exactly this height and width.
    To(usize, usize),
    /// So that the shorter side has this length.
    ShortestEdge(usize),
}

/// transformers' `CLIPImageProcessor`, on values in [0, 1] instead of bytes.
#[derive(Debug, Clone)]
pub(super) struct Preprocessor {
    scale: Option<(Scale, Filter)>,
    crop: Option<(usize, usize)>,
    mean: [f32; 3],
    deviation: [f32; 3],
}

impl Preprocessor {
    /// Reads and checks a config.
    pub(super) fn read(config: &Config) -> Result<Self> {
        let scale = if config.flag_or("do_resize", true)? {
            let filter = match config.integer_or("resample", 3)? {
                2 => Filter::Triangle,
                3 => Filter::Cubic,
                other => return Err(config.unsupported("resample", other, "2 (bilinear), 3 (bicubic)")),
            };
            // Older files give one number for the shorter side.
            let scale = match config.object_opt("size") {
                Ok(Some(size)) if size.has("shortest_edge") => Scale::ShortestEdge(size.size("shortest_edge")?),
                Ok(Some(size)) => Scale::To(size.size("height")?, size.size("width")?),
                _ => Scale::ShortestEdge(config.size_or("size", 224)?),
            };
            Some((scale, filter))
        } else {
            None
        };
        let crop = if config.flag_or("do_center_crop", true)? {
            Some(match config.object_opt("crop_size") {
                Ok(Some(size)) => (size.size("height")?, size.size("width")?),
                _ => {
                    let side = config.size_or("crop_size", 224)?;
                    (side, side)
                }
            })
        } else {
            None
        };
        let [mean, deviation] = if config.flag_or("do_normalize", true)? {
            [
                triple(config, "image_mean", [0.481_454_66, 0.457_827_5, 0.408_210_73])?,
                triple(config, "image_std", [0.268_629_54, 0.261_302_6, 0.275_777_1])?,
            ]
        } else {
            [[0.0; 3], [1.0; 3]]
        };
        Ok(Self { scale, crop, mean, deviation })
    }

    /// Height and width of what [`apply`](Self::apply) gives for square pictures.
    pub(super) fn size(&self) -> (usize, usize) {
        match (self.crop, self.scale) {
            (Some(size), _) => size,
            (None, Some((Scale::To(height, width), _))) => (height, width),
            (None, Some((Scale::ShortestEdge(side), _))) => (side, side),
            (None, None) => (0, 0),
        }
    }

    /// `[b, 3, h, w]` in [0, 1] → `[b, 3, h', w']`, on the CPU.
    pub(super) fn apply(&self, pictures: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = pictures.dims4()?;
        let mut pixels = pictures.to_device(&Device::Cpu)?;
        if let Some((scale, filter)) = self.scale {
            let (to_height, to_width) = match scale {
                Scale::To(height, width) => (height, width),
                Scale::ShortestEdge(side) if height <= width => (side, side * width / height),
                Scale::ShortestEdge(side) => (side * height / width, side),
            };
            pixels = resize(&pixels, to_height, to_width, filter)?;
        }
        if let Some((height, width)) = self.crop {
            let (_, _, has_height, has_width) = pixels.dims4()?;
            if height > has_height || width > has_width {
                return Err(crate::files::ModelError::Input(format!(
                    "a picture of {has_height}x{has_width} is smaller than CLIP's crop of {height}x{width}"
                )));
            }
            pixels = pixels.narrow(2, (has_height - height) / 2, height)?.narrow(3, (has_width - width) / 2, width)?;
        }
        let [mean, deviation] =
            [self.mean, self.deviation].map(|values| Tensor::from_slice(&values, (1, 3, 1, 1), &Device::Cpu));
        Ok(pixels.broadcast_sub(&mean?)?.broadcast_div(&deviation?)?)
    }
}

fn triple(config: &Config, field: &str, default: [f32; 3]) -> Result<[f32; 3]> {
    match config.numbers_opt(field)? {
        None => Ok(default),
        Some(values) => match values[..] {
            [a, b, c] => Ok([a as f32, b as f32, c as f32]),
            _ => Err(config.wrong(field, "three numbers", format!("{} numbers", values.len()))),
        },
    }
}
