//! Choice of metrics by name, in flags and files.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use candle_core::Device;

use super::clip_score::ClipScore;
use super::cmmd::Cmmd;
use super::hps_v2::HpsV2;
use super::image_reward::ImageReward;
use super::lpips::Lpips;
use super::pick_score::PickScore;
use super::psnr::Psnr;
use super::ssim::Ssim;
use super::{Metric, SetMetric};
use crate::files::error::{ModelError, Result};

/// The available metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Peak signal-to-noise ratio to the uncached picture.
    Psnr,
    /// Structural similarity to the uncached picture.
    Ssim,
    /// Learned perceptual distance to the uncached picture.
    Lpips,
    /// CLIP score: cosine of the embeddings of picture and prompt.
    ClipScore,
    /// PickScore of the picture for its prompt.
    PickScore,
    /// Human Preference Score v2 of the picture for its prompt.
    HpsV2,
    /// ImageReward of the picture for its prompt.
    ImageReward,
    /// Fréchet inception distance between two sets of pictures.
    Fid,
    /// Maximum mean discrepancy between the CLIP embeddings of two sets of pictures.
    Cmmd,
}

/// Every metric with its name and the form of its weights: a file, a folder, or `None` for a metric without weights.
const KINDS: [(MetricKind, &str, Option<&str>); 9] = [
    (MetricKind::Psnr, "psnr", None),
    (MetricKind::Ssim, "ssim", None),
    (MetricKind::Lpips, "lpips", Some("FILE")),
    (MetricKind::ClipScore, "clip_score", Some("DIR")),
    (MetricKind::PickScore, "pick_score", Some("DIR")),
    (MetricKind::HpsV2, "hps_v2", Some("DIR")),
    (MetricKind::ImageReward, "image_reward", Some("DIR")),
    (MetricKind::Fid, "fid", Some("FILE")),
    (MetricKind::Cmmd, "cmmd", Some("DIR")),
];

/// A metric to measure, written as `ssim` or `lpips=FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricChoice {
    /// The metric.
    pub kind: MetricKind,
    /// File or folder of its weights; empty for a metric without weights.
    pub path: PathBuf,
}

impl MetricChoice {
    /// Whether the metric compares sets of pictures, so that a single picture has no value.
    pub fn is_of_sets(&self) -> bool {
        matches!(self.kind, MetricKind::Fid | MetricKind::Cmmd)
    }

    /// Loads a metric of sets. Fails for a metric of single pictures.
    pub fn load_of_sets(&self, device: &Device) -> Result<Box<dyn SetMetric>> {
        match self.kind {
            MetricKind::Fid => fid(&self.path, device),
            MetricKind::Cmmd => Ok(Box::new(Cmmd::load(&self.path, device)?)),
            _ => Err(ModelError::Input(format!("{} has a value for each picture, not for a set", self.name()))),
        }
    }

    fn name(&self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self.kind).map_or("", |(_, name, _)| name)
    }

    /// Loads a metric of single pictures. Fails for a metric of sets.
    pub fn load(&self, device: &Device) -> Result<Box<dyn Metric>> {
        Ok(match self.kind {
            MetricKind::Psnr => Box::new(Psnr::default()),
            MetricKind::Ssim => Box::new(Ssim::default()),
            MetricKind::Lpips => Box::new(Lpips::load(&self.path, device)?),
            MetricKind::ClipScore => Box::new(ClipScore::load(&self.path, device)?),
            MetricKind::PickScore => Box::new(PickScore::load(&self.path, device)?),
            MetricKind::HpsV2 => Box::new(HpsV2::load(&self.path, device)?),
            MetricKind::ImageReward => Box::new(ImageReward::load(&self.path, device)?),
            MetricKind::Fid | MetricKind::Cmmd => {
                return Err(ModelError::Input(format!(
                    "{} compares sets of pictures and has no value for one: `evocache-worker score` measures it",
                    self.name()
                )));
            }
        })
    }
}

impl FromStr for MetricChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, path) = text.split_once('=').map_or((text, None), |(name, path)| (name, Some(path)));
        let Some((kind, _, weights)) = KINDS.iter().find(|(_, known, _)| *known == name) else {
            return Err(format!("'{name}' is not a metric; use one of {}", known()));
        };
        match (weights, path) {
            (None, None) => Ok(Self { kind: *kind, path: PathBuf::new() }),
            (None, Some(_)) => Err(format!("{name} has no weights; write it without '='")),
            (Some(_), Some(path)) if !path.is_empty() => Ok(Self { kind: *kind, path: path.into() }),
            (Some(weights), _) => Err(format!("{name} needs its weights; write it as {name}={weights}")),
        }
    }
}

#[cfg(feature = "fid")]
fn fid(weights: &Path, device: &Device) -> Result<Box<dyn SetMetric>> {
    Ok(Box::new(super::fid::Fid::load(weights, device)?))
}

#[cfg(not(feature = "fid"))]
fn fid(_: &Path, _: &Device) -> Result<Box<dyn SetMetric>> {
    Err(ModelError::Input("this build does not measure fid; build evocache-worker with the feature fid".into()))
}

/// All metrics as they are written in a choice.
fn known() -> String {
    let written = |(_, name, weights): &(MetricKind, &str, Option<&str>)| match weights {
        Some(weights) => format!("{name}={weights}"),
        None => (*name).to_owned(),
    };
    KINDS.iter().map(written).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<MetricChoice>();
        assert_eq!(read("ssim").unwrap().kind, MetricKind::Ssim);
        assert_eq!(read("lpips=a=b").unwrap(), MetricChoice { kind: MetricKind::Lpips, path: "a=b".into() });
        for (text, wanted) in [
            ("beauty", "'beauty' is not a metric; use one of psnr, ssim, lpips=FILE"),
            ("psnr=x", "psnr has no weights; write it without '='"),
            ("lpips", "lpips needs its weights; write it as lpips=FILE"),
            ("clip_score=", "clip_score needs its weights; write it as clip_score=DIR"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
