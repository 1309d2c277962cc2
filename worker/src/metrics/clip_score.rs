//! CLIP score (Hessel et al., arXiv 2104.08718, without its factor): cosine between picture and prompt.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::Metric;
use super::preprocess::Preprocessor;
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::weights::Weights;
use crate::models::clip::{Clip, ClipConfig};
use crate::models::diffusers::TRANSFORMERS_STEM;
use crate::models::tokenizer::Tokenizer;

/// Cosine of the CLIP embeddings of picture and prompt. Prompts go to CLIP's own tokenizer as they are.
pub struct ClipScore {
    clip: Clip,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    texts: Option<Tensor>,
    device: Device,
}

impl ClipScore {
    /// Loads a CLIP folder: `config.json`, weights, tokenizer, `preprocessor_config.json`.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        let config = ClipConfig::read(&Config::read(&folder.join("config.json"))?)?;
        let preprocessor = Preprocessor::read(&Config::read(&folder.join("preprocessor_config.json"))?)?;
        if preprocessor.size() != (config.image_size, config.image_size) {
            return Err(ModelError::Input(format!(
                "'{}' gives pictures of {:?}, the CLIP beside it takes {} rows and columns",
                folder.join("preprocessor_config.json").display(),
                preprocessor.size(),
                config.image_size
            )));
        }
        let tokenizer = Tokenizer::open(folder, config.text.max_tokens)?;
        let clip = Clip::load(&Weights::open(folder, TRANSFORMERS_STEM, device)?, config)?;
        Ok(Self { clip, tokenizer, preprocessor, texts: None, device: device.clone() })
    }

    /// Unit vectors of texts.
    pub fn embed_texts(&self, texts: &[&str]) -> Result<Tensor> {
        self.clip.embed_texts(&self.tokenizer.encode(texts)?)
    }

    /// Unit vectors of pictures `[b, 3, h, w]` in [0, 1] of any size.
    pub fn embed_pictures(&self, pictures: &Tensor) -> Result<Tensor> {
        self.clip.embed_images(&self.preprocessor.apply(pictures)?.to_device(&self.device)?)
    }
}

impl Metric for ClipScore {
    fn declaration(&self) -> MetricDeclaration {
        MetricDeclaration {
            name: "clip_score".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "cosine of the CLIP embeddings of picture and prompt".into(),
        }
    }

    fn prepare(&mut self, texts: &[&str], _: &[Tensor]) -> Result<()> {
        self.texts = Some(self.embed_texts(texts)?);
        Ok(())
    }

    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        let Some(texts) = &self.texts else {
            return Err(ModelError::Input("clip_score was not given the texts".into()));
        };
        let texts = texts.narrow(0, first, pictures.dim(0)?)?;
        let cosines = (self.embed_pictures(pictures)? * texts)?.sum(D::Minus1)?.to_vec1::<f32>()?;
        Ok(cosines.into_iter().map(f64::from).collect())
    }
}
