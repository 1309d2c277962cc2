//! Resolution binning: the sizes that PixArt was trained at, and the resize from the nearest of them to the requested
//! size. diffusers' PixArt pipelines do this by default (`use_resolution_binning=True`).

use candle_core::Tensor;

use crate::files::error::{ModelError, Result};

/// `(height / width in hundredths, height, width)`, height and width in sixteenths of the native size. The tables
/// `ASPECT_RATIO_…_BIN` of diffusers are this one, scaled to each native size.
const SIZES: [(u32, usize, usize); 33] = [
    (25, 8, 32),
    (28, 8, 29),
    (32, 9, 28),
    (33, 9, 27),
    (35, 9, 26),
    (40, 10, 25),
    (42, 10, 24),
    (48, 11, 23),
    (50, 11, 22),
    (52, 11, 21),
    (57, 12, 21),
    (60, 12, 20),
    (68, 13, 19),
    (72, 13, 18),
    (78, 14, 18),
    (82, 14, 17),
    (88, 15, 17),
    (94, 15, 16),
    (100, 16, 16),
    (107, 16, 15),
    (113, 17, 15),
    (121, 17, 14),
    (129, 18, 14),
    (138, 18, 13),
    (146, 19, 13),
    (167, 20, 12),
    (175, 21, 12),
    (200, 22, 11),
    (209, 23, 11),
    (240, 24, 10),
    (250, 25, 10),
    (300, 27, 9),
    (400, 32, 8),
];

/// Additional sizes at 2048 pixels, with extreme aspect ratios.
const MORE: [(u32, usize, usize); 7] =
    [(26, 8, 31), (27, 8, 30), (289, 26, 9), (311, 28, 9), (362, 29, 8), (375, 30, 8), (388, 31, 8)];

/// The trained height and width in pixels with the nearest aspect ratio, for a transformer with a native size of
/// `sample_size` latent rows.
pub fn nearest(sample_size: usize, height: usize, width: usize) -> Result<(usize, usize)> {
    let mut sizes = SIZES.to_vec();
    match sample_size {
        32 | 64 | 128 => {}
        256 => sizes.extend(MORE),
        other => {
            return Err(ModelError::Input(format!(
                "no table of trained sizes for a native size of {other} latent rows; known are 32, 64, 128 and 256"
            )));
        }
    }
    sizes.sort_unstable();
    let ratio = height as f64 / width as f64;
    let distance = |hundredths: u32| (f64::from(hundredths) / 100.0 - ratio).abs();
    let mut best = sizes[0];
    for size in sizes {
        // Of two at the same distance the first, like Python's `min`.
        if distance(size.0) < distance(best.0) {
            best = size;
        }
    }
    Ok((best.1 * sample_size / 2, best.2 * sample_size / 2))
}

/// Resizes pictures `[b, c, h, w]` until they cover `height × width`, and crops the center to that size.
pub fn cover(pictures: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, _, old_height, old_width) = pictures.dims4()?;
    if (old_height, old_width) == (height, width) {
        return Ok(pictures.clone());
    }
    let ratio = (height as f64 / old_height as f64).max(width as f64 / old_width as f64);
    // Truncate like Python's `int`, but not below the requested size.
    let side = |old: usize, wanted: usize| ((old as f64 * ratio) as usize).max(wanted);
    let (tall, wide) = (side(old_height, height), side(old_width, width));
    let resized = pictures.contiguous()?.upsample_bilinear2d(tall, wide, false)?;
    Ok(resized.narrow(2, (tall - height) / 2, height)?.narrow(3, (wide - width) / 2, width)?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn sizes_are_those_of_diffusers() {
        for (sample_size, asked, wanted) in [
            (128, (1024, 1024), (1024, 1024)),
            (128, (768, 1024), (832, 1152)),
            (64, (600, 400), (608, 416)),
            (32, (100, 900), (128, 512)),
            (256, (3000, 1000), (3456, 1152)),
            (256, (3120, 1000), (3584, 1152)),
            (128, (3120, 1000), (1728, 576)),
        ] {
            assert_eq!(nearest(sample_size, asked.0, asked.1).unwrap(), wanted, "{sample_size}: {asked:?}");
        }
        assert!(nearest(48, 64, 64).unwrap_err().to_string().contains("native size of 48 latent rows"));
    }

    #[test]
    fn pictures_cover_the_size_that_is_asked_for() {
        // torch.nn.functional.interpolate of arange(12) as 3 × 4 to 6 × 8, and its middle rows.
        let x = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((1, 1, 3, 4)).unwrap();
        let found = cover(&x, 2, 8).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let wanted = [3.0, 3.25, 3.75, 4.25, 4.75, 5.25, 5.75, 6.0, 5.0, 5.25, 5.75, 6.25, 6.75, 7.25, 7.75, 8.0];
        assert_eq!(found, wanted);
        assert_eq!(cover(&x, 3, 4).unwrap().dims(), [1, 1, 3, 4]);
        assert_eq!(cover(&x, 5, 3).unwrap().dims(), [1, 1, 5, 3]);
    }
}
