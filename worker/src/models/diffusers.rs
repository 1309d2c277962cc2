//! A model folder as diffusers' `save_pretrained` writes it: which parts it has, and how to load each.
//!
//! Configs, tokenizers and the headers of weights are read once, when a folder is opened. Weights are read when they are
//! asked for; that of text encoders may be long after, so that what has changed by then is refused.

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

/// The first letters of diffusers' weight files.
const DIFFUSERS_STEM: &str = "diffusion_pytorch_model";

/// The first letters of transformers' weight files.
pub const TRANSFORMERS_STEM: &str = "model";

/// Latent rows and columns that FLUX's pipeline takes where it is told no size.
const FLUX_NATIVE: usize = 128;

/// The most tokens that a text may be padded to.
const MOST_TOKENS: usize = 4096;

/// The field of `model_index.json` in which a folder may say how many tokens its pipeline is to be called with. diffusers
/// does not look at fields that begin so.
const FOLDERS_TOKENS: &str = "_max_sequence_length";

/// How prompts are read, where it is not as the pipeline does it by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextOptions {
    /// Tokens that T5's texts are padded and cut to, diffusers' `max_sequence_length`.
    pub max_tokens: Option<usize>,
    /// Whether captions are cleaned, diffusers' `clean_caption`; PixArt's are.
    pub clean_caption: bool,
}

impl TextOptions {
    /// What tells these options from a pipeline's own in a fingerprint.
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
    /// Reads `model_index.json`, checks that every part is of a known class, and reads all but the weights.
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
                "a {} does not clean its captions; PixArt's pipelines do",
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
        // Configs first: a wrong class is told before gigabytes are opened.
        let own = config("transformer")?;
        let transformer = match class.family {
            Family::PixArt => Transformer::PixArt(PixArtConfig::read(&own)?),
            Family::Flux => Transformer::Flux(FluxConfig::read(&own)?),
            Family::StableDiffusion3 => Transformer::Sd3(Sd3Config::read(&own)?),
            Family::Dit => Transformer::Dit(DitConfig::read(&own)?),
        };
        let vae = VaeConfig::read(&config("vae")?, class.family.shifts_latents())?;
        let scheduler = Config::read_diffusers(&path.join("scheduler").join("scheduler_config.json"))?;
        // The pipeline hands its sampler evenly spaced sigmas, rather than leave them to the sampler.
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
                    // All CLIPs of a pipeline take as many tokens as its first tokenizer says.
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

    /// What is wrong with an encoder's config is told now, and not when texts come.
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

    fn weights(&self, part: &str, device: &Device) -> Result<Weights> {
        let weights = self.weights.get(part).ok_or_else(|| self.lacks(part))?;
        Ok(weights.on(device))
    }

    fn lacks(&self, part: &str) -> ModelError {
        ModelError::Input(format!("a {} has no part '{part}'", self.class.name))
    }

    /// Latent rows and columns of the size that the model was made for.
    pub fn native_latent_size(&self) -> usize {
        match &self.transformer {
            Transformer::PixArt(config) => config.sample_size,
            Transformer::Flux(_) => FLUX_NATIVE,
            Transformer::Sd3(config) => config.sample_size,
            Transformer::Dit(config) => config.sample_size,
        }
    }

    /// Loads the transformer, in numbers of this kind.
    pub fn transformer(&self, device: &Device, dtype: DType) -> Result<Box<dyn BlockModel>> {
        let weights = self.weights("transformer", device)?.with_dtype(dtype);
        Ok(match &self.transformer {
            Transformer::PixArt(config) => Box::new(PixArt::load(&weights, config.clone())?),
            Transformer::Flux(config) => Box::new(Flux::load(&weights, config.clone())?),
            Transformer::Sd3(config) => Box::new(Sd3::load(&weights, config.clone())?),
            Transformer::Dit(config) => Box::new(Dit::load(&weights, config.clone())?),
        })
    }

    /// Loads the decoder.
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

    /// Loads the T5 of a PixArt folder.
    pub fn text_encoder(&self, device: &Device) -> Result<TextEncoder<'_>> {
        match self.class.family {
            Family::PixArt => self.t5("text_encoder", "tokenizer", device),
            _ => {
                Err(ModelError::Input(format!("the prompts of a {} go through more than one encoder", self.class.name)))
            }
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
                // Zeros stand for T5 where the folder goes without.
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

    /// The sampler's settings.
    pub fn samplers(&self) -> &SamplerFactory {
        &self.samplers
    }

    /// Fails if a file that was read, or will be, is not what it was when the folder was opened.
    pub fn unchanged(&self) -> Result<()> {
        self.snapshot.unchanged()
    }

    /// What the folder holds, as a digest; see [`Snapshot`].
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        self.snapshot.fingerprint()
    }
}

/// How many tokens T5's texts have: as asked for, as the folder says, or as the pipeline does by itself.
fn text_tokens(index: &Config, class: &PipelineClass, texts: TextOptions) -> Result<usize> {
    let refused =
        |tokens: usize, why: String| Err(ModelError::Input(format!("{tokens} text tokens cannot be had: {why}")));
    let most = class.family.most_tokens().unwrap_or(MOST_TOKENS);
    match texts.max_tokens {
        Some(tokens) if class.text_tokens == 0 => refused(tokens, format!("a {} has none", class.name)),
        Some(tokens) if tokens == 0 || tokens > most => {
            refused(tokens, format!("a {} takes 1 to {most} of T5", class.name))
        }
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

/// The class that the index gives a part, one of those that it may have.
fn part_class(index: &Config, part: &Part) -> Result<String> {
    let entry = index.texts(part.name)?;
    match entry.get(1) {
        Some(class) if part.classes.contains(&class.as_str()) => Ok(class.clone()),
        Some(class) => Err(index.unsupported(part.name, class, &part.classes.join(", "))),
        None => Err(index.wrong(part.name, "[library, class]", format!("{entry:?}"))),
    }
}

/// States and pooled vectors of texts.
type Clip = (Tensor, Tensor);
