//! Small RGB pictures: PNG in and out, and the drawing that a contact sheet needs.

use std::io::Cursor;

use super::font;

/// Pictures with a longer side are refused before they are decoded: no thumbnail is so large.
const MAX_SIDE: u32 = 4096;

/// A picture, three bytes per pixel, rows from top to bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// A picture of one color.
    pub(super) fn new(width: usize, height: usize, color: [u8; 3]) -> Self {
        Self { width, height, rgb: color.repeat(width * height) }
    }

    /// Decodes any PNG; transparency is dropped, grey becomes RGB.
    pub(super) fn from_png(png: &[u8]) -> Result<Self, String> {
        let mut decoder = png::Decoder::new(Cursor::new(png));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
        let (width, height) = (reader.info().width, reader.info().height);
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(format!("{width} x {height} pixels: more than {MAX_SIDE} a side"));
        }
        let size = reader.output_buffer_size().ok_or("too large")?;
        let mut bytes = vec![0; size];
        let info = reader.next_frame(&mut bytes).map_err(|e| e.to_string())?;
        bytes.truncate(info.buffer_size());
        let rgb = match info.color_type {
            png::ColorType::Rgb => bytes,
            png::ColorType::Rgba => bytes.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
            png::ColorType::Grayscale => bytes.iter().flat_map(|&g| [g; 3]).collect(),
            png::ColorType::GrayscaleAlpha => bytes.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
            other @ png::ColorType::Indexed => return Err(format!("color type {other:?} was not expanded")),
        };
        Ok(Self { width: width as usize, height: height as usize, rgb })
    }

    /// Encodes the picture as PNG.
    pub(super) fn to_png(&self) -> Result<Vec<u8>, String> {
        let side = |n: usize| u32::try_from(n).map_err(|_| format!("{n} pixels a side"));
        let mut bytes = vec![];
        let mut encoder = png::Encoder::new(&mut bytes, side(self.width)?, side(self.height)?);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
        writer.write_image_data(&self.rgb).map_err(|e| e.to_string())?;
        writer.finish().map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    /// The color of a pixel; black outside of the picture.
    pub(super) fn get(&self, x: usize, y: usize) -> [u8; 3] {
        let at = 3 * (y * self.width + x);
        match self.rgb.get(at..at + 3) {
            Some(&[r, g, b]) if x < self.width => [r, g, b],
            _ => [0; 3],
        }
    }

    fn set(&mut self, x: usize, y: usize, color: [u8; 3]) {
        let at = 3 * (y * self.width + x);
        if x < self.width
            && let Some(pixel) = self.rgb.get_mut(at..at + 3)
        {
            pixel.copy_from_slice(&color);
        }
    }

    /// Draws another picture with its upper left corner at (x, y), each pixel as a square of `scale` pixels.
    pub(super) fn draw(&mut self, x: usize, y: usize, other: &Self, scale: usize) {
        for dy in 0..other.height * scale {
            for dx in 0..other.width * scale {
                self.set(x + dx, y + dy, other.get(dx / scale, dy / scale));
            }
        }
    }

    /// Draws a line of text with its upper left corner at (x, y).
    pub(super) fn write(&mut self, x: usize, y: usize, text: &str, color: [u8; 3]) {
        for (dx, dy) in font::pixels(text) {
            self.set(x + dx, y + dy, color);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_round_trips() {
        let mut picture = Picture::new(5, 3, [1, 2, 3]);
        picture.set(4, 2, [200, 100, 50]);
        assert_eq!(Picture::from_png(&picture.to_png().unwrap()).unwrap(), picture);
        assert!(Picture::from_png(b"no png").is_err());
        assert!(Picture::from_png(&picture.to_png().unwrap()[..40]).is_err());
    }

    #[test]
    fn scaling_repeats_pixels_and_nothing_is_drawn_outside() {
        let mut small = Picture::new(2, 1, [0; 3]);
        small.set(1, 0, [9; 3]);
        let mut large = Picture::new(5, 2, [255; 3]);
        large.draw(2, 0, &small, 2);
        assert_eq!((0..5).map(|x| large.get(x, 1)[0]).collect::<Vec<_>>(), [255, 255, 0, 0, 9]);
    }
}
