//! Converts tensors in [0, 1] to 8-bit RGB pictures and PNG, and back.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::files::error::{ModelError, Result};

/// An 8-bit RGB picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `3 · width · height` bytes, row by row.
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

    /// Reads a PNG file of any color type. Drops the alpha channel, like Pillow's `convert("RGB")`.
    pub fn read(path: &Path) -> Result<Self> {
        let damaged = |e: png::DecodingError| damaged(path, &e);
        let mut decoder = decoder(path)?;
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(damaged)?;
        let too_large = || ModelError::Picture { path: path.into(), message: "it is too large".into() };
        let mut bytes = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
        let info = reader.next_frame(&mut bytes).map_err(damaged)?;
        let channels = info.color_type.samples();
        let pixels = bytes[..info.buffer_size()].chunks_exact(channels);
        let rgb = match channels {
            1 | 2 => pixels.flat_map(|pixel| [pixel[0]; 3]).collect(),
            _ => pixels.flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        };
        Ok(Self { width: info.width as usize, height: info.height as usize, rgb })
    }

    /// Height and width of a PNG file in pixels, from its header.
    pub fn size_of(path: &Path) -> Result<(usize, usize)> {
        let reader = decoder(path)?.read_info().map_err(|e| damaged(path, &e))?;
        Ok((reader.info().height as usize, reader.info().width as usize))
    }

    /// The picture as `[1, 3, h, w]` in [0, 1] on the CPU.
    pub fn tensor(&self) -> Result<Tensor> {
        let values: Vec<f32> = self.rgb.iter().map(|&byte| f32::from(byte) / 255.0).collect();
        let rows = Tensor::from_vec(values, (1, self.height, self.width, 3), &Device::Cpu)?;
        Ok(rows.permute((0, 3, 1, 2))?.contiguous()?)
    }

    /// The picture reduced by the smallest integer factor that makes both sides at most `limit`; each pixel is the mean
    /// of a square.
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

fn decoder(path: &Path) -> Result<png::Decoder<BufReader<File>>> {
    let file =
        File::open(path).map_err(|source| ModelError::Picture { path: path.into(), message: source.to_string() })?;
    Ok(png::Decoder::new(BufReader::new(file)))
}

fn damaged(path: &Path, error: &png::DecodingError) -> ModelError {
    ModelError::Picture { path: path.into(), message: error.to_string() }
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

    #[test]
    fn a_file_of_any_color_type_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        let picture = Picture { width: 5, height: 4, rgb: (0..60).collect() };
        std::fs::write(&path, picture.png().unwrap()).unwrap();
        assert_eq!(Picture::read(&path).unwrap(), picture);
        assert_eq!(Picture::size_of(&path).unwrap(), (4, 5));
        assert_eq!(Picture::from_batch(&picture.tensor().unwrap(), 0).unwrap(), picture);

        let gray = |color, samples: usize| {
            let mut bytes = Vec::new();
            let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
            encoder.set_color(color);
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&[7, 9, 8, 6][..2 * samples]).unwrap();
            writer.finish().unwrap();
            std::fs::write(&path, bytes).unwrap();
            Picture::read(&path).unwrap().rgb
        };
        assert_eq!(gray(png::ColorType::Grayscale, 1), [7, 7, 7, 9, 9, 9]);
        assert_eq!(gray(png::ColorType::GrayscaleAlpha, 2), [7, 7, 7, 8, 8, 8]);

        std::fs::write(&path, "no picture").unwrap();
        let error = Picture::read(&path).unwrap_err().to_string();
        assert!(error.starts_with("picture") && error.contains("picture.png"), "{error}");
    }
}
