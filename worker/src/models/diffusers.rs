//! A model folder as written by diffusers' `save_pretrained`: its parts, and how to load each.
//!
//! Configs, tokenizers and weight headers are read once, when a folder is opened. Weights are read on demand. Text
//! encoders may be loaded much later, so loading them fails if a file has changed since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::block_model::{BlockModel, Prompts};
use super::clip_text::{ClipTextEncoder, TextConfig};
use super::dit::{Dit, DitConfig};
use super::flux::{Flux, FluxConfig};
use super::pipelines::{Family, Kind, PIPELINES, Part, PipelineClass};
use super::pixart::{PixArt, PixArtConfig};
use super::prompts::{self, Classes, TextEncoder};
use super::sd3::{Sd3, Sd3Config};
use super::t5::{T5Config, T5Encoder};
use super::tokenizer::{self, Tokenizer};
use super::vae::{VaeConfig, VaeDecoder};
use crate::files::config::Config;
use crate::files::error::{ModelError, Result};
use crate::files::fields;
use crate::files::fingerprint::{Fingerprint, Snapshot};
use crate::files::hub::repository_of;
use crate::files::weights::{Single, Weights};
use crate::samplers::SamplerFactory;
use crate::samplers::flow_match::FlowSigmas;

/// Stem of diffusers' weight files.
const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// Stem of transformers' weight files.
pub const TRANSFORMERS_STEM: &str = "model";

/// Latent rows and columns of the default size of FLUX's pipeline.
const FLUX_NATIVE: usize = 128;

/// Most tokens that a text may be padded to.
const MOST_TOKENS: usize = 4096;

/// Field of `model_index.json` that sets the number of T5 tokens for this folder. diffusers ignores fields whose names
/// start with an underscore.
const FOLDERS_TOKENS: &str = "_max_sequence_length";

/// Text options that differ from the pipeline's defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Tokens that T5's texts are padded and truncated to: diffusers' `max_sequence_length`.
    pub max_tokens: Option<usize>,
    /// Whether captions are cleaned: diffusers' `clean_caption`, for PixArt only.
    pub clean_caption: bool,
}

impl TextOptions {
    /// Suffix of the fingerprint for these options; empty for the pipeline's defaults.
    pub fn mark(self) -> String {
        let tokens = self.max_tokens.map(|tokens| format!("-{tokens}tokens")).unwrap_or_default();
        format!("{tokens}{}", if self.clean_caption { "-cleaned" } else { "" })
    }
}

enum Transformer {
    PixArt(PixArtConfig),
    Flux(FluxConfig),
    Sd3(Sd3Config),
    Dit(DitConfig),
}

/// An opened model folder.
pub struct ModelFolder {
    path: PathBuf,
    index: Config,
    class: &'static PipelineClass,
    transformer: Transformer,
    vae: VaeConfig,
    samplers: SamplerFactory,
    weights: BTreeMap<&'static str, Weights>,
    encoders: BTreeMap<&'static str, Config>,
    tokenizers: BTreeMap<&'static str, Tokenizer>,
    text_tokens: usize,
    texts: TextOptions,
    snapshot: Snapshot,
}

impl ModelFolder {
    /// Reads everything but the weights. Fails, naming file and field, if a part is missing, has an unknown class, or
    /// uses a setting that is not supported.
    pub fn open(path: &Path, texts: TextOptions) -> Result<Self> {
        let file = path.join("model_index.json");
        let mut files = vec![file.clone()];
        let mut snapshot = Snapshot::of_files(path, [file.clone()]);
        let index = Config::read(&file)?;
        let name = index.text("_class_name")?;
        let Some(class) = PIPELINES.iter().find(|class| class.name == name) else {
            let supported: Vec<&str> = PIPELINES.iter().map(|class| class.name).collect();
            return Err(index.unsupported("_class_name", name, &supported.join(", ")));
        };
        if texts.clean_caption && class.family != Family::PixArt {
            return Err(ModelError::Input(format!(
                "a {} does not clean captions; only PixArt's pipelines do",
                class.name
            )));
        }
        fields::check(&index, class.name)?;
        let text_tokens = text_tokens(&index, class, texts)?;
        let parts: Vec<&Part> = class.parts.iter().filter(|p| !(p.optional && index.lacks(p.name))).collect();
        let mut classes = BTreeMap::new();
        for part in &parts {
            classes.insert(part.name, part_class(&index, part)?);
            snapshot.add_folder(&path.join(part.name));
        }
        let (mut weights, mut encoders, mut tokenizers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let config = |part: &str| Config::read_diffusers(&path.join(part).join("config.json"));
        let class_of = |part: &str| classes.get(part).map_or("", String::as_str);
        // Configs first, so that a wrong class is reported before gigabytes of weights are opened.
        let own = config("transformer")?;
        let transformer = match class.family {
            Family::PixArt => Transformer::PixArt(PixArtConfig::read(&own)?),
            Family::Flux => Transformer::Flux(FluxConfig::read(&own)?),
            Family::StableDiffusion3 => Transformer::Sd3(Sd3Config::read(&own)?),
            Family::Dit => Transformer::Dit(DitConfig::read(&own)?),
        };
        let vae = VaeConfig::read(&config("vae")?, class.family.shifts_latents())?;
        let scheduler = Config::read_diffusers(&path.join("scheduler").join("scheduler_config.json"))?;
        // FLUX's pipeline passes evenly spaced sigmas to its sampler; others leave them to the sampler.
        let sigmas = if class.family == Family::Flux { FlowSigmas::Even } else { FlowSigmas::Trained };
        let samplers = SamplerFactory::read(&scheduler, class_of("scheduler"), sigmas)?;
        let mut clip_tokens = None;
        for part in &parts {
            let folder = path.join(part.name);
            let opened = match part.kind {
                Kind::Model => Some(Weights::open(&folder, DIFFUSERS_STEM, Single::Last, &Device::Cpu)?),
                Kind::TextEncoder => {
                    encoders.insert(part.name, Config::read(&folder.join("config.json"))?);
                    Some(Weights::open(&folder, TRANSFORMERS_STEM, Single::First, &Device::Cpu)?)
                }
                Kind::Tokenizer(kind) => {
                    // The length of a pipeline's first CLIP tokenizer applies to all its CLIPs.
                    let length = if kind == tokenizer::Kind::T5 { Some(text_tokens) } else { clip_tokens };
                    let tokenizer = Tokenizer::open(&folder, kind, length)?;
                    if kind == tokenizer::Kind::Clip {
                        clip_tokens = Some(tokenizer.length());
                    }
                    tokenizers.insert(part.name, tokenizer);
                    files.extend(tokenizer::FILES.map(|name| folder.join(name)).into_iter().filter(|f| f.is_file()));
                    None
                }
                Kind::Scheduler => {
                    files.push(folder.join("scheduler_config.json"));
                    None
                }
            };
            if let Some(opened) = opened {
                files.push(folder.join("config.json"));
                files.extend(opened.files().cloned());
                weights.insert(part.name, opened);
            }
        }
        snapshot.keep(files)?;
        let folder = Self {
            path: path.into(),
            index,
            class,
            transformer,
            vae,
            samplers,
            weights,
            encoders,
            tokenizers,
            text_tokens,
            texts,
            snapshot,
        };
        folder.check_encoders(clip_tokens)?;
        Ok(folder)
    }

    /// Checks the configs of the text encoders now instead of when the first text arrives.
    fn check_encoders(&self, clip_tokens: Option<usize>) -> Result<()> {
        for (&part, config) in &self.encoders {
            match self.class.parts.iter().find(|p| p.name == part) {
                Some(found) if found.classes.contains(&"T5EncoderModel") => {
                    T5Config::read(config)?;
                }
                _ => {
                    let (most, tokens) = (TextConfig::read(config)?.max_tokens, clip_tokens.unwrap_or(0));
                    if tokens > most {
                        let expected = format!("at least {tokens}, the model_max_length of 'tokenizer'");
                        return Err(config.wrong("max_position_embeddings", expected, most.to_string()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Class of the pipeline.
    pub fn pipeline(&self) -> &str {
        self.class.name
    }

    /// Default name of the model, which a search refers to: its repository on the hub, or else the name of the folder.
    pub fn name(&self) -> String {
        let absolute = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let own = || absolute.file_name().map(|name| name.to_string_lossy().into_owned());
        repository_of(&absolute).or_else(own).unwrap_or_else(|| "model".into())
    }

    fn weights(&self, part: &str, device: &Device) -> Result<Weights> {
        let weights = self.weights.get(part).ok_or_else(|| self.lacks(part))?;
        Ok(weights.on(device))
    }

    fn lacks(&self, part: &str) -> ModelError {
        ModelError::Input(format!("a {} has no part '{part}'", self.class.name))
    }

    /// Latent rows and columns of the model's native size.
    pub fn native_latent_size(&self) -> usize {
        match &self.transformer {
            Transformer::PixArt(config) => config.sample_size,
            Transformer::Flux(_) => FLUX_NATIVE,
            Transformer::Sd3(config) => config.sample_size,
            Transformer::Dit(config) => config.sample_size,
        }
    }

    /// Loads the transformer with weights of this data type.
    pub fn transformer(&self, device: &Device, dtype: DType) -> Result<Box<dyn BlockModel>> {
        let weights = self.weights("transformer", device)?.with_dtype(dtype);
        Ok(match &self.transformer {
            Transformer::PixArt(config) => Box::new(PixArt::load(&weights, config.clone())?),
            Transformer::Flux(config) => Box::new(Flux::load(&weights, config.clone())?),
            Transformer::Sd3(config) => Box::new(Sd3::load(&weights, config.clone())?),
            Transformer::Dit(config) => Box::new(Dit::load(&weights, config.clone())?),
        })
    }

    /// Loads the VAE decoder.
    pub fn vae(&self, device: &Device) -> Result<VaeDecoder> {
        VaeDecoder::load(&self.weights("vae", device)?, self.vae.clone())
    }

    fn tokenizer(&self, part: &str) -> Result<&Tokenizer> {
        self.tokenizers.get(part).ok_or_else(|| self.lacks(part))
    }

    fn encoder(&self, part: &str) -> Result<&Config> {
        self.encoders.get(part).ok_or_else(|| self.lacks(part))
    }

    /// Text tokens per prompt, padding included.
    pub fn tokens(&self) -> usize {
        match self.class.family {
            Family::StableDiffusion3 => {
                self.tokenizers.get("tokenizer").map_or(0, Tokenizer::length) + self.text_tokens
            }
            _ => self.text_tokens,
        }
    }

    /// Loads the T5 encoder of a PixArt folder. Fails for other pipelines.
    pub fn text_encoder(&self, device: &Device) -> Result<TextEncoder<'_>> {
        match self.class.family {
            Family::PixArt => self.t5("text_encoder", "tokenizer", device),
            _ => Err(ModelError::Input(format!("a {} does not encode prompts by T5 alone", self.class.name))),
        }
    }

    fn t5(&self, encoder: &str, tokenizer: &str, device: &Device) -> Result<TextEncoder<'_>> {
        let config = T5Config::read(self.encoder(encoder)?)?;
        Ok(TextEncoder {
            tokenizer: self.tokenizer(tokenizer)?,
            encoder: T5Encoder::load(&self.weights(encoder, device)?, config)?,
            device: device.clone(),
            cleans: self.texts.clean_caption,
        })
    }

    fn clip(&self, encoder: &str, tokenizer: &str, projected: bool, texts: &[&str], device: &Device) -> Result<Clip> {
        let weights = self.weights(encoder, device)?;
        let encoder = ClipTextEncoder::load(&weights, self.encoder(encoder)?, projected)?;
        prompts::clip(self.tokenizer(tokenizer)?, &encoder, texts)
    }

    /// Encodes prompts, one row each. Fails if a file has changed since the folder was opened.
    pub fn encode(&self, texts: &[&str], device: &Device) -> Result<Prompts> {
        if texts.is_empty() {
            return Err(ModelError::Input("there is no text to encode".into()));
        }
        self.unchanged()?;
        let encoded = self.encode_all(texts, device)?;
        self.unchanged()?;
        Ok(encoded)
    }

    fn encode_all(&self, texts: &[&str], device: &Device) -> Result<Prompts> {
        match &self.transformer {
            Transformer::PixArt(_) => self.text_encoder(device)?.masked(texts),
            Transformer::Flux(_) => {
                let (_, pooled) = self.clip("text_encoder", "tokenizer", false, texts, device)?;
                let t5 = self.t5("text_encoder_2", "tokenizer_2", device)?;
                Ok(Prompts::pooled(t5.unmasked(texts)?, pooled))
            }
            Transformer::Sd3(config) => {
                let first = self.clip("text_encoder", "tokenizer", true, texts, device)?;
                let second = self.clip("text_encoder_2", "tokenizer_2", true, texts, device)?;
                // As in diffusers, zeros replace the states of a missing T5.
                let t5 = if self.index.lacks("text_encoder_3") {
                    Tensor::zeros((texts.len(), self.text_tokens, config.text_channels), DType::F32, device)?
                } else {
                    self.t5("text_encoder_3", "tokenizer_3", device)?.unmasked(texts)?
                };
                prompts::stable_diffusion_3([first, second], &t5)
            }
            Transformer::Dit(config) => Classes::read(&self.index, config.classes)?.prompts(texts, device),
        }
    }

    /// Settings of the sampler.
    pub fn samplers(&self) -> &SamplerFactory {
        &self.samplers
    }

    /// Fails if a file that was or will be read has changed since the folder was opened.
    pub fn unchanged(&self) -> Result<()> {
        self.snapshot.unchanged()
    }

    /// Digest of the contents of the folder; see [`Snapshot`].
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        self.snapshot.fingerprint()
    }
}

/// Number of T5 tokens per text, from the options, the folder, or else the pipeline's default.
fn text_tokens(index: &Config, class: &PipelineClass, texts: TextOptions) -> Result<usize> {
    let refused =
        |tokens: usize, why: String| Err(ModelError::Input(format!("cannot use {tokens} text tokens: {why}")));
    let most = class.family.most_tokens().unwrap_or(MOST_TOKENS);
    match texts.max_tokens {
        Some(tokens) if class.text_tokens == 0 => refused(tokens, format!("a {} takes none", class.name)),
        Some(tokens) if tokens == 0 || tokens > most => refused(tokens, format!("a {} takes 1 to {most}", class.name)),
        Some(tokens) => Ok(tokens),
        None => match index.size_opt(FOLDERS_TOKENS)? {
            Some(tokens) if tokens > most => {
                Err(index.wrong(FOLDERS_TOKENS, format!("at most {most}"), tokens.to_string()))
            }
            Some(tokens) if class.text_tokens > 0 => Ok(tokens),
            _ => Ok(class.text_tokens),
        },
    }
}

/// The class of a part in the index. Fails if the part cannot have that class.
fn part_class(index: &Config, part: &Part) -> Result<String> {
    let entry = index.texts(part.name)?;
    match entry.get(1) {
        Some(class) if part.classes.contains(&class.as_str()) => Ok(class.clone()),
        Some(class) => Err(index.unsupported(part.name, class, &part.classes.join(", "))),
        None => Err(index.wrong(part.name, "[library, class]", format!("{entry:?}"))),
    }
}

/// Hidden states and pooled vectors of texts.
type Clip = (Tensor, Tensor);
