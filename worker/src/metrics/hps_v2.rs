//! HPS v2 (Wu et al., arXiv 2306.09341): the cosine of a CLIP-H trained on human preferences.
//!
//! Weights: a folder with `open_clip_config.json` and the tokenizer of `laion/CLIP-ViT-H-14-laion2B-s32B-b79K`, and
//! `open_clip_model.safetensors` made from `HPS_v2.1_compressed.pt`: `python -c "import torch, safetensors.torch as s;
//! s.save_file(torch.load('HPS_v2.1_compressed.pt', map_location='cpu')['state_dict'], 'open_clip_model.safetensors')"`

use std::path::Path;

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::clip_score::ClipScore;
use super::{Against, Metric};
use crate::files::error::Result;

/// Cosine of picture and prompt as in PyPI's `hpsv2`, but in full instead of half precision.
pub struct HpsV2 {
    clip: ClipScore,
}

impl HpsV2 {
    /// Loads a folder in open_clip's layout.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        Ok(Self { clip: ClipScore::load_open_clip(folder, device)?.whole_pictures() })
    }
}

impl Metric for HpsV2 {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: "hps_v2".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "Human Preference Score v2 of the picture for its prompt".into(),
        }
    }

    fn against(&self) -> Against {
        Against::Text
    }

    fn prepare(&mut self, texts: &[&str], baseline: &[Tensor]) -> Result<()> {
        self.clip.prepare(texts, baseline)
    }

    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        self.clip.cosines("hps_v2", first, pictures)
    }
}
