//! A model folder as diffusers' `save_pretrained` writes it: which parts it has, and how to load each.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};

use super::block_model::BlockModel;
use super::pixart::{PixArt, PixArtConfig};
use super::t5::{T5Config, T5Encoder};
use super::tokenizer::{Tokenizer, Tokens};
use super::vae::{VaeConfig, VaeDecoder};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fingerprint::{Fingerprint, fingerprint};
use crate::files::weights::Weights;

/// Texts that go through the text encoder at once.
const TEXT_BATCH: usize = 8;

/// The first letters of diffusers' weight files.
const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// The first letters of transformers' weight files.
pub const TRANSFORMERS_STEM: &str = "model";

/// Pipelines that can be run, with the length they pad prompts to.
const PIPELINES: [(&str, usize); 2] = [("PixArtAlphaPipeline", 120), ("PixArtSigmaPipeline", 300)];

/// Classes that each part may have.
const PARTS: [(&str, &[&str]); 5] = [
    ("transformer", &["PixArtTransformer2DModel"]),
    ("vae", &["AutoencoderKL"]),
    ("text_encoder", &["T5EncoderModel"]),
    ("tokenizer", &["T5Tokenizer", "T5TokenizerFast"]),
    ("scheduler", &["DPMSolverMultistepScheduler"]),
];

/// An opened model folder. Weights are loaded by the methods, not before.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    path: PathBuf,
    pipeline: String,
    max_tokens: usize,
}

impl ModelFolder {
    /// Reads `model_index.json` and checks that every part is of a known class.
    pub fn open(path: &Path) -> Result<Self> {
        let index = Config::read(&path.join("model_index.json"))?;
        let class = index.text("_class_name")?;
        let Some(&(pipeline, max_tokens)) = PIPELINES.iter().find(|(name, _)| *name == class) else {
            let supported: Vec<&str> = PIPELINES.iter().map(|(name, _)| *name).collect();
            return Err(index.unsupported("_class_name", class, &supported.join(", ")));
        };
        for (part, classes) in PARTS {
            let entry = index.texts(part)?;
            match entry.get(1) {
                Some(class) if classes.contains(&class.as_str()) => {}
                Some(class) => return Err(index.unsupported(part, class, &classes.join(", "))),
                None => return Err(index.wrong(part, "[library, class]", format!("{entry:?}"))),
            }
        }
        Ok(Self { path: path.into(), pipeline: pipeline.into(), max_tokens })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pipeline's class.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// The folder's own name, which a search asks for unless the worker is told another.
    pub fn name(&self) -> String {
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        absolute.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
    }

    fn config(&self, part: &str) -> Result<Config> {
        Config::read(&self.path.join(part).join("config.json"))
    }

    fn weights(&self, part: &str, stem: &str, device: &Device) -> Result<Weights> {
        Weights::open(&self.path.join(part), stem, device)
    }

    /// Latent rows and columns of the size that the model was made for.
    pub fn native_latent_size(&self) -> Result<usize> {
        Ok(PixArtConfig::read(&self.config("transformer")?)?.sample_size)
    }

    /// Loads the transformer.
    pub fn transformer(&self, device: &Device) -> Result<Box<dyn BlockModel>> {
        let config = PixArtConfig::read(&self.config("transformer")?)?;
        Ok(Box::new(PixArt::load(&self.weights("transformer", DIFFUSERS_STEM, device)?, config)?))
    }

    /// Loads the decoder.
    pub fn vae(&self, device: &Device) -> Result<VaeDecoder> {
        let config = VaeConfig::read(&self.config("vae")?)?;
        VaeDecoder::load(&self.weights("vae", DIFFUSERS_STEM, device)?, config)
    }

    /// Opens the tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::open(&self.path.join("tokenizer"), self.max_tokens)
    }

    /// Loads tokenizer and text encoder.
    pub fn text_encoder(&self, device: &Device) -> Result<TextEncoder> {
        let config = T5Config::read(&self.config("text_encoder")?)?;
        Ok(TextEncoder {
            tokenizer: self.tokenizer()?,
            encoder: T5Encoder::load(&self.weights("text_encoder", TRANSFORMERS_STEM, device)?, config)?,
            device: device.clone(),
        })
    }

    /// The sampler's config.
    pub fn scheduler_config(&self) -> Result<Config> {
        Config::read(&self.path.join("scheduler").join("scheduler_config.json"))
    }

    /// What the folder holds, as a digest; see [`fingerprint`].
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut files: Vec<PathBuf> = [
            "model_index.json",
            "transformer/config.json",
            "vae/config.json",
            "text_encoder/config.json",
            "tokenizer/tokenizer.json",
            "tokenizer/tokenizer_config.json",
            "scheduler/scheduler_config.json",
        ]
        .map(|name| self.path.join(name))
        .into();
        for (part, stem) in
            [("transformer", DIFFUSERS_STEM), ("vae", DIFFUSERS_STEM), ("text_encoder", TRANSFORMERS_STEM)]
        {
            files.extend_from_slice(self.weights(part, stem, &Device::Cpu)?.files());
        }
        fingerprint(&self.path, files)
    }
}

/// Tokenizer and text encoder together.
pub struct TextEncoder {
    tokenizer: Tokenizer,
    encoder: T5Encoder,
    device: Device,
}

impl TextEncoder {
    /// Token ids as diffusers makes them for PixArt with `clean_caption=False`: lower case, no blanks around.
    pub fn tokenize(&self, texts: &[&str]) -> Result<Tokens> {
        let texts: Vec<String> = texts.iter().map(|text| text.to_lowercase().trim().to_owned()).collect();
        self.tokenizer.encode(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Embeddings `[b, tokens, channels]` and mask `[b, tokens]` of texts.
    pub fn encode(&self, texts: &[&str]) -> Result<(Tensor, Tensor)> {
        if texts.is_empty() {
            return Err(ModelError::Input("there is no text to encode".into()));
        }
        let tokens = self.tokenize(texts)?;
        let parts = (0..texts.len())
            .step_by(TEXT_BATCH)
            .map(|first| self.encoder.encode(&tokens.range(first..texts.len().min(first + TEXT_BATCH))))
            .collect::<Result<Vec<_>>>()?;
        Ok((Tensor::cat(&parts, 0)?, tokens.mask(&self.device)?))
    }
}
