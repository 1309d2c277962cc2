//! CLIP score (Hessel et al., arXiv 2104.08718, without its factor 2.5): cosine of the CLIP embeddings of picture and
//! prompt.

use std::path::Path;

use candle_core::{D, Device, Tensor};
use evocache_proto::domain::{Direction, MetricDeclaration};

use super::preprocess::Preprocessor;
use super::{Against, Metric, read_config};
use crate::files::error::{ModelError, Result};
use crate::files::weights::{Single, Weights};
use crate::models::clip::{Clip, ClipConfig};
use crate::models::diffusers::TRANSFORMERS_STEM;
use crate::models::tokenizer::Tokenizer;

/// open_clip's config file.
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
/// Stem of open_clip's weight files.
const OPEN_CLIP_STEM: &str = "open_clip_model";

/// How to get a folder in transformers' layout.
const HINT: &str = "a CLIP folder holds config.json, weights, tokenizer and preprocessor_config.json; in Python, save the model \
                    and its `AutoProcessor` with `save_pretrained(folder)`";
/// How to get a folder in open_clip's layout.
const OPEN_CLIP_HINT: &str = "an open_clip folder holds open_clip_config.json, open_clip_model.safetensors and the tokenizer; \
                              for CLIP-H, get them with `hf download laion/CLIP-ViT-H-14-laion2B-s32B-b79K`";

/// Texts embedded at once.
const BATCH: usize = 8;

/// Cosine of the CLIP embeddings of picture and prompt. Prompts are passed to CLIP's tokenizer unchanged.
pub struct ClipScore {
    clip: Clip,
    tokenizer: Tokenizer,
    preprocessor: Preprocessor,
    texts: Option<Tensor>,
    device: Device,
}

impl ClipScore {
    /// Loads a CLIP folder in transformers' layout (`config.json`, `preprocessor_config.json`) or open_clip's
    /// (`open_clip_config.json`), with weights and tokenizer.
    pub fn load(folder: &Path, device: &Device) -> Result<Self> {
        if !folder.join("config.json").is_file() && folder.join(OPEN_CLIP_CONFIG).is_file() {
            return Self::load_open_clip(folder, device);
        }
        let config = ClipConfig::read(&read_config(folder, "config.json", HINT)?)?;
        let preprocessor = Preprocessor::read(&read_config(folder, "preprocessor_config.json", HINT)?)?;
        if preprocessor.size() != (config.image_size, config.image_size) {
            return Err(ModelError::Input(format!(
                "'{}' produces pictures of {:?}, but the CLIP beside it takes {} rows and columns",
                folder.join("preprocessor_config.json").display(),
                preprocessor.size(),
                config.image_size
            )));
        }
        Self::with(folder, TRANSFORMERS_STEM, config, preprocessor, device)
    }

    /// Loads a folder in open_clip's layout: `open_clip_config.json`, `open_clip_model.safetensors`, tokenizer.
    pub(super) fn load_open_clip(folder: &Path, device: &Device) -> Result<Self> {
        let file = read_config(folder, OPEN_CLIP_CONFIG, OPEN_CLIP_HINT)?;
        let config = ClipConfig::read_open_clip(&file)?;
        let preprocessor = Preprocessor::read_open_clip(&file, config.image_size)?;
        Self::with(folder, OPEN_CLIP_STEM, config, preprocessor, device)
    }

    fn with(
        folder: &Path,
        stem: &str,
        config: ClipConfig,
        preprocessor: Preprocessor,
        device: &Device,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::open_within(folder, config.text.max_tokens)?;
        let clip = Clip::load(&Weights::open(folder, stem, Single::First, device)?, config)?;
        Ok(Self { clip, tokenizer, preprocessor, texts: None, device: device.clone() })
    }

    /// Replaces cropping by padding, so that CLIP sees the whole picture.
    pub(super) fn whole_pictures(mut self) -> Self {
        self.preprocessor = Preprocessor::whole(self.clip.config().image_size);
        self
    }

    /// Unit vectors of texts, `[b, projection]`.
    pub fn embed_texts(&self, texts: &[&str]) -> Result<Tensor> {
        let tokens = self.tokenizer.encode(texts)?;
        let parts = (0..tokens.batch())
            .step_by(BATCH)
            .map(|first| self.clip.embed_texts(&tokens.range(first..tokens.batch().min(first + BATCH))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Unit vectors `[b, projection]` of pictures `[b, 3, h, w]` in [0, 1], of any size.
    pub fn embed_pictures(&self, pictures: &Tensor) -> Result<Tensor> {
        self.clip.embed_images(&self.preprocessor.apply(pictures)?.to_device(&self.device)?)
    }

    /// The cosine of each picture of a batch with its text; the batch starts at text `first`. Errors name `metric`.
    pub(super) fn cosines(&self, metric: &str, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        let Some(texts) = &self.texts else {
            return Err(ModelError::Input(format!("{metric} was not given the texts")));
        };
        let texts = texts.narrow(0, first, pictures.dim(0)?)?;
        let cosines = (self.embed_pictures(pictures)? * texts)?.sum(D::Minus1)?.to_vec1::<f32>()?;
        Ok(cosines.into_iter().map(f64::from).collect())
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

    fn against(&self) -> Against {
        Against::Text
    }

    fn prepare(&mut self, texts: &[&str], _: &[Tensor]) -> Result<()> {
        self.texts = Some(self.embed_texts(texts)?);
        Ok(())
    }

    fn measure(&self, first: usize, pictures: &Tensor) -> Result<Vec<f64>> {
        self.cosines("clip_score", first, pictures)
    }
}
