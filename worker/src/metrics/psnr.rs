//! Peak signal-to-noise ratio to the picture of the uncached run: how much caching changed it, not how good it is.

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::baseline::Baseline;
use super::{Against, Metric};
use crate::files::error::Result;

/// Largest value in dB, for a mean squared error of 1e-10 or less, including identical pictures.
pub const CAP_DB: f64 = 100.0;

/// `-10 log10(mean squared difference)` over all values of pictures in [0, 1], in dB, at most [`CAP_DB`].
#[derive(Debug, Default)]
pub struct Psnr {
    baseline: Baseline,
}

impl Metric for Psnr {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: "psnr".into(),
            direction: Direction::Maximize,
            unit: "dB".into(),
            description: "peak signal-to-noise ratio to the uncached picture, 100 dB for identical ones".into(),
        }
    }

    fn against(&self) -> Against {
        Against::Uncached
    }

    fn prepare(&mut self, _: &[&str], baseline: &[Tensor]) -> Result<()> {
        self.baseline.take(baseline)
    }

    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        let reference = self.baseline.of("psnr", first, pictures)?;
        let errors =
            (pictures.to_device(&Device::Cpu)? - reference)?.sqr()?.flatten_from(1)?.mean(1)?.to_vec1::<f32>()?;
        Ok(errors.into_iter().map(|error| decibels(f64::from(error))).collect())
    }
}

fn decibels(error: f64) -> f64 {
    // Not `min`, which would hide a NaN.
    let db = -10.0 * error.log10();
    if db > CAP_DB { CAP_DB } else { db }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_pictures_have_the_cap_and_nan_stays_visible() {
        let batch = Tensor::full(0.5f32, (2, 3, 4, 4), &Device::Cpu).unwrap();
        let mut psnr = Psnr::default();
        assert!(psnr.measure(0, &batch).is_err());
        psnr.prepare(&["a", "b"], std::slice::from_ref(&batch)).unwrap();
        assert_eq!(psnr.measure(0, &batch).unwrap(), [CAP_DB, CAP_DB]);
        let off = (&batch.narrow(0, 0, 1).unwrap() + 0.1).unwrap();
        assert!((psnr.measure(1, &off).unwrap()[0] - 20.0).abs() < 1e-4);
        let nan = (&off * f64::NAN).unwrap();
        assert!(psnr.measure(1, &nan).unwrap()[0].is_nan());
    }
}
