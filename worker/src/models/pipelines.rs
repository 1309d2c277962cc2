//! The supported pipelines: the parts of a folder, their classes, and how prompts become tokens.

use super::tokenizer;

/// How a pipeline conditions its transformer on prompts, and decodes latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// T5 with a padding mask.
    PixArt,
    /// CLIP's pooled vector, and T5 whose padding counts as text.
    Flux,
    /// Two CLIPs and, if the folder has it, T5; padding counts as text.
    StableDiffusion3,
    /// Class labels.
    Dit,
}

impl Family {
    /// Whether the decoder's `shift_factor` is added to latents; the other pipelines ignore it.
    pub(super) fn shifts_latents(self) -> bool {
        matches!(self, Self::Flux | Self::StableDiffusion3)
    }

    /// Most T5 tokens that the pipeline accepts, if it has a limit.
    pub(super) fn most_tokens(self) -> Option<usize> {
        matches!(self, Self::Flux | Self::StableDiffusion3).then_some(512)
    }
}

/// The kind of a part, which determines its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A model saved by diffusers.
    Model,
    /// A text encoder saved by transformers.
    TextEncoder,
    /// A tokenizer.
    Tokenizer(tokenizer::Kind),
    /// A sampler: `scheduler_config.json`.
    Scheduler,
}

/// The former common class of PixArt's and DiT's transformers, which differ in `norm_type`.
pub(super) const GENERAL_TRANSFORMER: &str = "Transformer2DModel";

/// A part of a pipeline.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) classes: &'static [&'static str],
    pub(super) kind: Kind,
    /// Whether a folder may lack the part.
    pub(super) optional: bool,
}

/// A pipeline class.
#[derive(Debug)]
pub(super) struct PipelineClass {
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// Default number of tokens that T5's texts are padded and truncated to; 0 without T5.
    pub(super) text_tokens: usize,
    pub(super) parts: &'static [Part],
}

const fn part(name: &'static str, kind: Kind, classes: &'static [&'static str]) -> Part {
    Part { name, classes, kind, optional: false }
}

const fn optional(name: &'static str, kind: Kind, classes: &'static [&'static str]) -> Part {
    Part { name, classes, kind, optional: true }
}

const T5_TOKENIZER: Kind = Kind::Tokenizer(tokenizer::Kind::T5);
const CLIP_TOKENIZER: Kind = Kind::Tokenizer(tokenizer::Kind::Clip);
const SAMPLERS: &[&str] = &["DPMSolverMultistepScheduler", "DDIMScheduler"];
const FLOWS: &[&str] = &["FlowMatchEulerDiscreteScheduler"];
const T5_TOKENIZERS: &[&str] = &["T5Tokenizer", "T5TokenizerFast"];
const CLIP_TOKENIZERS: &[&str] = &["CLIPTokenizer", "CLIPTokenizerFast"];

const PIXART: &[Part] = &[
    part("transformer", Kind::Model, &["PixArtTransformer2DModel", GENERAL_TRANSFORMER]),
    part("vae", Kind::Model, &["AutoencoderKL"]),
    part("text_encoder", Kind::TextEncoder, &["T5EncoderModel"]),
    part("tokenizer", T5_TOKENIZER, T5_TOKENIZERS),
    part("scheduler", Kind::Scheduler, SAMPLERS),
];

const FLUX: &[Part] = &[
    part("transformer", Kind::Model, &["FluxTransformer2DModel"]),
    part("vae", Kind::Model, &["AutoencoderKL"]),
    part("text_encoder", Kind::TextEncoder, &["CLIPTextModel"]),
    part("tokenizer", CLIP_TOKENIZER, CLIP_TOKENIZERS),
    part("text_encoder_2", Kind::TextEncoder, &["T5EncoderModel"]),
    part("tokenizer_2", T5_TOKENIZER, T5_TOKENIZERS),
    part("scheduler", Kind::Scheduler, FLOWS),
];

const STABLE_DIFFUSION_3: &[Part] = &[
    part("transformer", Kind::Model, &["SD3Transformer2DModel"]),
    part("vae", Kind::Model, &["AutoencoderKL"]),
    part("text_encoder", Kind::TextEncoder, &["CLIPTextModelWithProjection"]),
    part("tokenizer", CLIP_TOKENIZER, CLIP_TOKENIZERS),
    part("text_encoder_2", Kind::TextEncoder, &["CLIPTextModelWithProjection"]),
    part("tokenizer_2", CLIP_TOKENIZER, CLIP_TOKENIZERS),
    optional("text_encoder_3", Kind::TextEncoder, &["T5EncoderModel"]),
    optional("tokenizer_3", T5_TOKENIZER, T5_TOKENIZERS),
    part("scheduler", Kind::Scheduler, FLOWS),
];

const DIT: &[Part] = &[
    part("transformer", Kind::Model, &["DiTTransformer2DModel", GENERAL_TRANSFORMER]),
    part("vae", Kind::Model, &["AutoencoderKL"]),
    part("scheduler", Kind::Scheduler, SAMPLERS),
];

/// All supported pipelines.
pub(super) const PIPELINES: &[PipelineClass] = &[
    pipeline("PixArtAlphaPipeline", Family::PixArt, 120, PIXART),
    pipeline("PixArtSigmaPipeline", Family::PixArt, 300, PIXART),
    pipeline("FluxPipeline", Family::Flux, 512, FLUX),
    pipeline("StableDiffusion3Pipeline", Family::StableDiffusion3, 256, STABLE_DIFFUSION_3),
    pipeline("DiTPipeline", Family::Dit, 0, DIT),
];

const fn pipeline(name: &'static str, family: Family, text_tokens: usize, parts: &'static [Part]) -> PipelineClass {
    PipelineClass { name, family, text_tokens, parts }
}
