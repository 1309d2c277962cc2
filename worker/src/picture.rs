//! Pictures as bytes: tensors in [0, 1] to 8-bit RGB and PNG.

use candle_core::{DType, Device, Tensor};

use crate::files::error::{ModelError, Result};

/// An 8-bit RGB picture, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `3 · width · height` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// One picture of a batch `[b, 3, h, w]` with values in [0, 1]; rounds as diffusers does.
    pub fn from_batch(batch: &Tensor, index: usize) -> Result<Self> {
        let (_, channels, height, width) = batch.dims4()?;
        if channels != 3 {
            return Err(ModelError::Input(format!("a picture has 3 channels, got {channels}")));
        }
        let picture = batch.get(index)?.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let values = picture.permute((1, 2, 0))?.flatten_all()?.to_vec1::<f32>()?;
        let rgb = values.into_iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8).collect();
        Ok(Self { width, height, rgb })
    }

    /// The picture with sides of at most `limit`, each pixel the mean of a square of an integer side.
    pub fn shrunk_to(&self, limit: usize) -> Self {
        let factor = self.width.max(self.height).div_ceil(limit.max(1)).max(1);
        let (width, height) = ((self.width / factor).max(1), (self.height / factor).max(1));
        let mut rgb = Vec::with_capacity(3 * width * height);
        for y in 0..height {
            for x in 0..width {
                for channel in 0..3 {
                    let rows = y * factor..((y + 1) * factor).min(self.height);
                    let columns = x * factor..((x + 1) * factor).min(self.width);
                    let count = (rows.len() * columns.len()) as u32;
                    let sum: u32 = rows
                        .flat_map(|y| columns.clone().map(move |x| (y * self.width + x) * 3 + channel))
                        .map(|i| u32::from(self.rgb[i]))
                        .sum();
                    rgb.push(((sum + count / 2) / count) as u8);
                }
            }
        }
        Self { width, height, rgb }
    }

    /// The picture as a PNG file.
    pub fn png(&self) -> Result<Vec<u8>> {
        let failed = |e: png::EncodingError| ModelError::Input(format!("cannot encode a PNG: {e}"));
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.rgb).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shrinks_by_whole_squares_and_encodes() {
        let picture = Picture { width: 5, height: 4, rgb: (0..60).collect() };
        assert_eq!(picture.shrunk_to(5), picture);
        let small = picture.shrunk_to(3);
        assert_eq!((small.width, small.height), (2, 2));
        assert_eq!(small.rgb[0], (3 + 15 + 18) / 4);
        assert_eq!(&small.png().unwrap()[1..4], b"PNG");
    }
}
