//! A model folder as diffusers' `save_pretrained` writes it: which parts it has, and how to load each.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::block_model::{BlockModel, Prompts};
use super::clip_text::ClipTextEncoder;
use super::dit::{Dit, DitConfig};
use super::flux::{Flux, FluxConfig};
use super::pipelines::{Family, Kind, PIPELINES, PipelineClass};
use super::pixart::{PixArt, PixArtConfig};
use super::prompts::{self, Classes, TextEncoder};
use super::sd3::{Sd3, Sd3Config};
use super::t5::{T5Config, T5Encoder};
use super::tokenizer::Tokenizer;
use super::vae::{VaeConfig, VaeDecoder};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fingerprint::{Fingerprint, fingerprint};
use crate::files::hub::repository_of;
use crate::files::weights::Weights;

/// The first letters of diffusers' weight files.
const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// The first letters of transformers' weight files.
pub const TRANSFORMERS_STEM: &str = "model";

/// Tokens of a CLIP text at most.
const CLIP_TOKENS: usize = 77;

/// Latent rows and columns that FLUX's pipeline takes where it is told no size.
const FLUX_NATIVE: usize = 128;

/// Files that a tokenizer may be in.
const TOKENIZER_FILES: [&str; 4] = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"];

/// An opened model folder. Weights are loaded by the methods, not before.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    path: PathBuf,
    index: Config,
    class: &'static PipelineClass,
}

impl ModelFolder {
    /// Reads `model_index.json` and checks that every part is of a known class.
    pub fn open(path: &Path) -> Result<Self> {
        let index = Config::read(&path.join("model_index.json"))?;
        let name = index.text("_class_name")?;
        let Some(class) = PIPELINES.iter().find(|class| class.name == name) else {
            let supported: Vec<&str> = PIPELINES.iter().map(|class| class.name).collect();
            return Err(index.unsupported("_class_name", name, &supported.join(", ")));
        };
        for part in class.parts {
            if part.optional && index.lacks(part.name) {
                continue;
            }
            let entry = index.texts(part.name)?;
            match entry.get(1) {
                Some(class) if part.classes.contains(&class.as_str()) => {}
                Some(class) => return Err(index.unsupported(part.name, class, &part.classes.join(", "))),
                None => return Err(index.wrong(part.name, "[library, class]", format!("{entry:?}"))),
            }
        }
        Ok(Self { path: path.into(), index, class })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pipeline's class.
    pub fn pipeline(&self) -> &str {
        self.class.name
    }

    /// The folder's own name, or its repository's on the hub, which a search asks for unless the worker is told another.
    pub fn name(&self) -> String {
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let own = || absolute.file_name().map(|name| name.to_string_lossy().into_owned());
        repository_of(&absolute).or_else(own).unwrap_or_else(|| "model".into())
    }

    fn config(&self, part: &str) -> Result<Config> {
        Config::read(&self.path.join(part).join("config.json"))
    }

    fn weights(&self, part: &str, stem: &str, device: &Device) -> Result<Weights> {
        Weights::open(&self.path.join(part), stem, device)
    }

    /// Latent rows and columns of the size that the model was made for.
    pub fn native_latent_size(&self) -> Result<usize> {
        let config = self.config("transformer")?;
        match self.class.family {
            Family::PixArt(_) => Ok(PixArtConfig::read(&config)?.sample_size),
            Family::Flux(_) => Ok(FLUX_NATIVE),
            Family::StableDiffusion3(_) => Ok(Sd3Config::read(&config)?.sample_size),
            Family::Dit => Ok(DitConfig::read(&config)?.sample_size),
        }
    }

    /// Loads the transformer, in numbers of this kind.
    pub fn transformer(&self, device: &Device, dtype: DType) -> Result<Box<dyn BlockModel>> {
        let config = self.config("transformer")?;
        let weights = || Ok::<_, ModelError>(self.weights("transformer", DIFFUSERS_STEM, device)?.with_dtype(dtype));
        // The config is read first: a wrong class is told before gigabytes are opened.
        Ok(match self.class.family {
            Family::PixArt(_) => {
                let config = PixArtConfig::read(&config)?;
                Box::new(PixArt::load(&weights()?, config)?)
            }
            Family::Flux(_) => {
                let config = FluxConfig::read(&config)?;
                Box::new(Flux::load(&weights()?, config)?)
            }
            Family::StableDiffusion3(_) => {
                let config = Sd3Config::read(&config)?;
                Box::new(Sd3::load(&weights()?, config)?)
            }
            Family::Dit => {
                let config = DitConfig::read(&config)?;
                Box::new(Dit::load(&weights()?, config)?)
            }
        })
    }

    /// Loads the decoder.
    pub fn vae(&self, device: &Device) -> Result<VaeDecoder> {
        let config = VaeConfig::read(&self.config("vae")?)?;
        VaeDecoder::load(&self.weights("vae", DIFFUSERS_STEM, device)?, config)
    }

    fn tokenizer(&self, part: &str, length: usize) -> Result<Tokenizer> {
        Tokenizer::open(&self.path.join(part), length)
    }

    /// Text tokens per prompt, padding included. Opens the tokenizers, so that a missing one is found early.
    pub fn tokens(&self) -> Result<usize> {
        match self.class.family {
            Family::PixArt(length) => Ok(self.tokenizer("tokenizer", length)?.length()),
            Family::Flux(length) => {
                self.tokenizer("tokenizer", CLIP_TOKENS)?;
                Ok(self.tokenizer("tokenizer_2", length)?.length())
            }
            Family::StableDiffusion3(length) => {
                let clip = self.tokenizer("tokenizer", CLIP_TOKENS)?.length();
                self.tokenizer("tokenizer_2", CLIP_TOKENS)?;
                Ok(clip + self.t5_tokens(length)?)
            }
            Family::Dit => Ok(0),
        }
    }

    /// T5's tokens in SD3's prompts: zeros stand for it where the folder goes without.
    fn t5_tokens(&self, length: usize) -> Result<usize> {
        if self.index.lacks("text_encoder_3") {
            return Ok(length);
        }
        Ok(self.tokenizer("tokenizer_3", length)?.length())
    }

    /// Loads the T5 of a PixArt folder and its tokenizer.
    pub fn text_encoder(&self, device: &Device) -> Result<TextEncoder> {
        match self.class.family {
            Family::PixArt(length) => self.t5("text_encoder", "tokenizer", length, device),
            _ => {
                Err(ModelError::Input(format!("the prompts of a {} go through more than one encoder", self.class.name)))
            }
        }
    }

    fn t5(&self, encoder: &str, tokenizer: &str, length: usize, device: &Device) -> Result<TextEncoder> {
        let config = T5Config::read(&self.config(encoder)?)?;
        Ok(TextEncoder {
            tokenizer: self.tokenizer(tokenizer, length)?,
            encoder: T5Encoder::load(&self.weights(encoder, TRANSFORMERS_STEM, device)?, config)?,
            device: device.clone(),
        })
    }

    fn clip(&self, encoder: &str, tokenizer: &str, projected: bool, texts: &[&str], device: &Device) -> Result<Clip> {
        let weights = self.weights(encoder, TRANSFORMERS_STEM, device)?;
        let encoder = ClipTextEncoder::load(&weights, &self.config(encoder)?, projected)?;
        prompts::clip(&self.tokenizer(tokenizer, CLIP_TOKENS)?, &encoder, texts)
    }

    /// Encodes prompts, one row each.
    pub fn encode(&self, texts: &[&str], device: &Device) -> Result<Prompts> {
        if texts.is_empty() {
            return Err(ModelError::Input("there is no text to encode".into()));
        }
        match self.class.family {
            Family::PixArt(_) => self.text_encoder(device)?.masked(texts),
            Family::Flux(length) => {
                let (_, pooled) = self.clip("text_encoder", "tokenizer", false, texts, device)?;
                let t5 = self.t5("text_encoder_2", "tokenizer_2", length, device)?;
                Ok(Prompts::pooled(t5.unmasked(texts)?, pooled))
            }
            Family::StableDiffusion3(length) => {
                let first = self.clip("text_encoder", "tokenizer", true, texts, device)?;
                let second = self.clip("text_encoder_2", "tokenizer_2", true, texts, device)?;
                let t5 = if self.index.lacks("text_encoder_3") {
                    let channels = Sd3Config::read(&self.config("transformer")?)?.text_channels;
                    Tensor::zeros((texts.len(), length, channels), DType::F32, device)?
                } else {
                    self.t5("text_encoder_3", "tokenizer_3", length, device)?.unmasked(texts)?
                };
                prompts::stable_diffusion_3([first, second], &t5)
            }
            Family::Dit => {
                let classes = DitConfig::read(&self.config("transformer")?)?.classes;
                Classes::read(&self.index, classes)?.prompts(texts, device)
            }
        }
    }

    /// The sampler's config.
    pub fn scheduler_config(&self) -> Result<Config> {
        Config::read(&self.path.join("scheduler").join("scheduler_config.json"))
    }

    /// Whether the pipeline hands its sampler evenly spaced sigmas, rather than leave them to the sampler.
    pub fn gives_sigmas(&self) -> bool {
        matches!(self.class.family, Family::Flux(_))
    }

    /// What the folder holds, as a digest; see [`fingerprint`].
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut files = vec![self.path.join("model_index.json")];
        for part in self.class.parts.iter().filter(|part| !self.index.lacks(part.name)) {
            let folder = self.path.join(part.name);
            let stem = match part.kind {
                Kind::Model => Some(DIFFUSERS_STEM),
                Kind::TextEncoder => Some(TRANSFORMERS_STEM),
                Kind::Tokenizer => {
                    files.extend(
                        TOKENIZER_FILES.map(|name| folder.join(name)).into_iter().filter(|file| file.is_file()),
                    );
                    None
                }
                Kind::Scheduler => {
                    files.push(folder.join("scheduler_config.json"));
                    None
                }
            };
            if let Some(stem) = stem {
                files.push(folder.join("config.json"));
                files.extend_from_slice(self.weights(part.name, stem, &Device::Cpu)?.files());
            }
        }
        fingerprint(&self.path, files)
    }
}

/// States and pooled vectors of texts.
type Clip = (Tensor, Tensor);
