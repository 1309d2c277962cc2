//! The pipelines that can be run: which parts a folder must have, of which classes, and how prompts become tokens.

use super::tokenizer;

/// How a pipeline makes prompts into what its transformer is conditioned on, and latents into pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// T5 with a mask.
    PixArt,
    /// CLIP's pooled vector, and T5 with its padding as text.
    Flux,
    /// Both CLIPs and, where the folder has it, T5, with their padding as text.
    StableDiffusion3,
    /// Classes.
    Dit,
}

impl Family {
    /// Whether the decoder's `shift_factor` is added to latents; the pipelines of the others never look at it.
    pub(super) fn shifts_latents(self) -> bool {
        matches!(self, Self::Flux | Self::StableDiffusion3)
    }

    /// The most tokens that the pipeline takes for T5, where it has a bound.
    pub(super) fn most_tokens(self) -> Option<usize> {
        matches!(self, Self::Flux | Self::StableDiffusion3).then_some(512)
    }
}

/// Where a part's weights are, if it has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Saved by diffusers.
    Model,
    /// Saved by transformers.
    TextEncoder,
    /// A tokenizer's files.
    Tokenizer(tokenizer::Kind),
    /// `scheduler_config.json`.
    Scheduler,
}

/// The class of PixArt's and DiT's transformers before each had its own; their `norm_type` tells which of them it is.
pub(super) const GENERAL_TRANSFORMER: &str = "Transformer2DModel";

/// A part of a pipeline.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) classes: &'static [&'static str],
    pub(super) kind: Kind,
    /// Whether a folder may do without it.
    pub(super) optional: bool,
}

/// A pipeline's class.
#[derive(Debug)]
pub(super) struct PipelineClass {
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// Tokens that T5's texts are padded and cut to, unless the pipeline is told otherwise; 0 without T5.
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

/// All of them.
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
