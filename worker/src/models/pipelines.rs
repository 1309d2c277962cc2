//! The pipelines that can be run: which parts a folder must have, of which classes, and how prompts become tokens.

/// How a pipeline makes prompts into what its transformer is conditioned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// T5 with a mask, padded to so many tokens.
    PixArt(usize),
    /// CLIP's pooled vector and T5 padded to so many tokens, padding included.
    Flux(usize),
    /// Both CLIPs and, where the folder has it, T5 padded to so many tokens, padding included.
    StableDiffusion3(usize),
    /// Classes.
    Dit,
}

/// Where a part's weights are, if it has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Saved by diffusers.
    Model,
    /// Saved by transformers.
    TextEncoder,
    /// `tokenizer.json`, or the files it is made from.
    Tokenizer,
    /// `scheduler_config.json`.
    Scheduler,
}

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
    pub(super) parts: &'static [Part],
}

const fn part(name: &'static str, kind: Kind, classes: &'static [&'static str]) -> Part {
    Part { name, classes, kind, optional: false }
}

const fn optional(name: &'static str, kind: Kind, classes: &'static [&'static str]) -> Part {
    Part { name, classes, kind, optional: true }
}

const SAMPLERS: &[&str] = &["DPMSolverMultistepScheduler", "DDIMScheduler"];
const FLOWS: &[&str] = &["FlowMatchEulerDiscreteScheduler"];
const T5_TOKENIZERS: &[&str] = &["T5Tokenizer", "T5TokenizerFast"];
const CLIP_TOKENIZERS: &[&str] = &["CLIPTokenizer", "CLIPTokenizerFast"];

const PIXART: &[Part] = &[
    part("transformer", Kind::Model, &["PixArtTransformer2DModel"]),
    part("vae", Kind::Model, &["AutoencoderKL"]),
    part("text_encoder", Kind::TextEncoder, &["T5EncoderModel"]),
    part("tokenizer", Kind::Tokenizer, T5_TOKENIZERS),
    part("scheduler", Kind::Scheduler, SAMPLERS),
];

const FLUX: &[Part] = &[
    part("transformer", Kind::Model, &["FluxTransformer2DModel"]),
    part("vae", Kind::Model, &["AutoencoderKL"]),
    part("text_encoder", Kind::TextEncoder, &["CLIPTextModel"]),
    part("tokenizer", Kind::Tokenizer, CLIP_TOKENIZERS),
    part("text_encoder_2", Kind::TextEncoder, &["T5EncoderModel"]),
    part("tokenizer_2", Kind::Tokenizer, T5_TOKENIZERS),
    part("scheduler", Kind::Scheduler, FLOWS),
];

const STABLE_DIFFUSION_3: &[Part] = &[
    part("transformer", Kind::Model, &["SD3Transformer2DModel"]),
    part("vae", Kind::Model, &["AutoencoderKL"]),
    part("text_encoder", Kind::TextEncoder, &["CLIPTextModelWithProjection"]),
    part("tokenizer", Kind::Tokenizer, CLIP_TOKENIZERS),
    part("text_encoder_2", Kind::TextEncoder, &["CLIPTextModelWithProjection"]),
    part("tokenizer_2", Kind::Tokenizer, CLIP_TOKENIZERS),
    optional("text_encoder_3", Kind::TextEncoder, &["T5EncoderModel"]),
    optional("tokenizer_3", Kind::Tokenizer, T5_TOKENIZERS),
    part("scheduler", Kind::Scheduler, FLOWS),
];

const DIT: &[Part] = &[
    part("transformer", Kind::Model, &["DiTTransformer2DModel"]),
    part("vae", Kind::Model, &["AutoencoderKL"]),
    part("scheduler", Kind::Scheduler, SAMPLERS),
];

/// All of them.
pub(super) const PIPELINES: &[PipelineClass] = &[
    PipelineClass { name: "PixArtAlphaPipeline", family: Family::PixArt(120), parts: PIXART },
    PipelineClass { name: "PixArtSigmaPipeline", family: Family::PixArt(300), parts: PIXART },
    PipelineClass { name: "FluxPipeline", family: Family::Flux(512), parts: FLUX },
    PipelineClass {
        name: "StableDiffusion3Pipeline",
        family: Family::StableDiffusion3(256),
        parts: STABLE_DIFFUSION_3,
    },
    PipelineClass { name: "DiTPipeline", family: Family::Dit, parts: DIT },
];
