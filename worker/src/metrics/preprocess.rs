//! Preprocessing of pictures for CLIP, as `preprocessor_config.json` says: resize, center crop, normalize.

use candle_core::{Device, Tensor};

use super::bicubic::{Filter, Resampling, resize};
use crate::files::config::Config;
use crate::files::error::Result;

/// The size to which a picture is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// This height and width.
    To(usize, usize),
    /// The shorter side has this length.
    ShortestEdge(usize),
    /// The longer side has this length; the shorter one is padded with black.
    LongestEdge(usize),
}

/// Channel means and standard deviations of CLIP's training pictures.
const CLIP_NORM: [[f32; 3]; 2] = [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]];

/// transformers' `CLIPImageProcessor` on values in [0, 1] instead of bytes.
#[derive(Debug, Clone)]
pub(super) struct Preprocessor {
    scale: Option<(Scale, Resampling)>,
    crop: Option<(usize, usize)>,
    /// Whether half of an odd number of cropped pixels is rounded, as in torchvision, or truncated, as in transformers.
    rounds: bool,
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
            // Older files give one number, the shorter side.
            let scale = match config.object_opt("size") {
                Ok(Some(size)) if size.has("shortest_edge") => Scale::ShortestEdge(size.size("shortest_edge")?),
                Ok(Some(size)) => Scale::To(size.size("height")?, size.size("width")?),
                _ => Scale::ShortestEdge(config.size_or("size", 224)?),
            };
            Some((scale, Resampling { filter, antialias: true, bytes: true }))
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
            [triple(config, "image_mean", CLIP_NORM[0])?, triple(config, "image_std", CLIP_NORM[1])?]
        } else {
            [[0.0; 3], [1.0; 3]]
        };
        Ok(Self { scale, crop, rounds: false, mean, deviation })
    }

    /// open_clip's preprocessing by the `preprocess_cfg` of a model: resize the shorter side, then crop the center.
    pub(super) fn read_open_clip(config: &Config, side: usize) -> Result<Self> {
        let Some(config) = config.object_opt("preprocess_cfg")? else { return Ok(Self::square(side)) };
        config.choice("interpolation", "bicubic", &["bicubic"])?;
        config.choice("resize_mode", "shortest", &["shortest"])?;
        let mean = triple(&config, "mean", CLIP_NORM[0])?;
        let deviation = triple(&config, "std", CLIP_NORM[1])?;
        Ok(Self { mean, deviation, ..Self::square(side) })
    }

    /// Preprocessing of the original CLIP and BLIP: resize the shorter side to `side` pixels with Pillow's bicubic
    /// filter, then crop the center.
    pub(super) fn square(side: usize) -> Self {
        let how = Resampling { filter: Filter::Cubic, antialias: true, bytes: true };
        let [mean, deviation] = CLIP_NORM;
        Self { scale: Some((Scale::ShortestEdge(side), how)), crop: Some((side, side)), rounds: true, mean, deviation }
    }

    /// HPSv2's preprocessing: resize the longer side to `side` pixels in floating point, then pad with black.
    pub(super) fn whole(side: usize) -> Self {
        let how = Resampling { filter: Filter::Cubic, antialias: true, bytes: false };
        let [mean, deviation] = CLIP_NORM;
        Self { scale: Some((Scale::LongestEdge(side), how)), crop: None, rounds: true, mean, deviation }
    }

    /// Height and width that [`apply`](Self::apply) gives for square pictures; 0 if they stay as they are.
    pub(super) fn size(&self) -> (usize, usize) {
        match (self.crop, self.scale) {
            (Some(size), _) => size,
            (None, Some((Scale::To(height, width), _))) => (height, width),
            (None, Some((Scale::ShortestEdge(side) | Scale::LongestEdge(side), _))) => (side, side),
            (None, None) => (0, 0),
        }
    }

    /// Preprocesses `[b, 3, h, w]` in [0, 1] to `[b, 3, h', w']`, on the CPU.
    pub(super) fn apply(&self, pictures: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = pictures.dims4()?;
        let mut pixels = pictures.to_device(&Device::Cpu)?;
        if let Some((scale, how)) = self.scale {
            let (to_height, to_width) = match scale {
                Scale::To(height, width) => (height, width),
                Scale::ShortestEdge(side) if height <= width => (side, side * width / height),
                Scale::ShortestEdge(side) => (side * height / width, side),
                Scale::LongestEdge(side) => {
                    (scaled(height, side, height.max(width)), scaled(width, side, height.max(width)))
                }
            };
            pixels = resize(&pixels, to_height, to_width, how)?;
            if let Scale::LongestEdge(side) = scale {
                let (above, left) = ((side - to_height) / 2, (side - to_width) / 2);
                pixels = pixels.pad_with_zeros(2, above, side - to_height - above)?.pad_with_zeros(
                    3,
                    left,
                    side - to_width - left,
                )?;
            }
        }
        if let Some((height, width)) = self.crop {
            let (_, _, has_height, has_width) = pixels.dims4()?;
            if height > has_height || width > has_width {
                return Err(crate::files::ModelError::Input(format!(
                    "a picture of {has_height}x{has_width} is smaller than CLIP's crop of {height}x{width}"
                )));
            }
            let half = |cut: usize| if self.rounds { (cut as f64 / 2.0).round_ties_even() as usize } else { cut / 2 };
            pixels = pixels.narrow(2, half(has_height - height), height)?.narrow(3, half(has_width - width), width)?;
        }
        let [mean, deviation] =
            [self.mean, self.deviation].map(|values| Tensor::from_slice(&values, (1, 3, 1, 1), &Device::Cpu));
        Ok(pixels.broadcast_sub(&mean?)?.broadcast_div(&deviation?)?)
    }
}

/// `length · side / longest`, rounded, at least one pixel.
fn scaled(length: usize, side: usize, longest: usize) -> usize {
    ((length as f64 * (side as f64 / longest as f64)).round_ties_even() as usize).max(1)
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
