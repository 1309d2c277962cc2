//! PickScore (Kirstain et al., arXiv 2305.01569): the scaled cosine of a CLIP trained on human choices.
//!
//! Weights: `yuvalkirstain/PickScore_v1`, a CLIP-H in transformers' layout, with the tokenizer and the
//! `preprocessor_config.json` of `laion/CLIP-ViT-H-14-laion2B-s32B-b79K` beside it.

use std::path::Path;

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::clip_score::ClipScore;
use super::{Against, Metric};
use crate::files::error::Result;
use crate::files::weights::{Single, Weights};
use crate::models::diffusers::TRANSFORMERS_STEM;

/// `exp(logit_scale) · cosine` of picture and prompt, as in the authors' example.
pub struct PickScore {
    clip: ClipScore,
    scale: f64,
}

impl PickScore {
    /// Loads a CLIP folder in transformers' layout.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let clip = ClipScore::load(folder, device)?;
        let scale =
            Weights::open(folder, TRANSFORMERS_STEM, Single::First, device)?.root().tensor("logit_scale", &[])?;
        Ok(Self { clip, scale: f64::from(scale.to_scalar::<f32>()?).exp() })
    }
}

impl Metric for PickScore {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: "pick_score".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "PickScore: how likely people choose the picture for its prompt".into(),
        }
    }

    fn against(&self) -> Against {
        Against::Text
    }

    fn prepare(&mut self, texts: &[&str], baseline: &[Tensor]) -> Result<()> {
        self.clip.prepare(texts, baseline)
    }

    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        let cosines = self.clip.cosines("pick_score", first, pictures)?;
        Ok(cosines.into_iter().map(|cosine| self.scale * cosine).collect())
    }
}
