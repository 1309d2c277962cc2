//! The model arguments, the same for every subcommand.

use std::path::PathBuf;

use clap::Args;
use evocache_proto::units::parse_bytes;

use super::Result;
use crate::evaluator::device::{DeviceChoice, Precision};
use crate::evaluator::pipeline::Pipeline;
use crate::files::{ModelError, hub};
use crate::models::diffusers::TextOptions;

/// The model to load and how to run it.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Model folder in the diffusers format, or OWNER/NAME[@REVISION] of a model in the Hugging Face hub's local cache
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The hub's local cache [default: hub in HF_HOME, or ~/.cache/huggingface/hub]
    #[arg(long, env = "HF_HUB_CACHE", value_name = "DIR")]
    hub_cache: Option<PathBuf>,
    /// Base folder of the Hugging Face tools, used if --hub-cache is not given
    #[arg(long, env = "HF_HOME", value_name = "DIR", hide = true)]
    hf_home: Option<PathBuf>,
    /// Decode pictures larger than the VAE's native size in tiles: less memory, slightly different pictures
    #[arg(long)]
    pub vae_tiling: bool,
    /// Tokens that T5 prompts are padded and truncated to [default: from the folder's model_index.json, or 120 for
    /// PixArt-α, 300 for PixArt-Σ, 512 for FLUX and 256 for Stable Diffusion 3]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Remove URLs, file names and the like from PixArt's prompts, as diffusers' pipelines do by default
    #[arg(long)]
    clean_caption: bool,
    /// Number format of the transformer: f32, f16 or bf16 [default: bf16 on CUDA, f32 elsewhere]
    #[arg(long)]
    precision: Option<Precision>,
    /// Memory that a run may use, including weights, such as 8G or 8GiB; a run that needs more is refused before it
    /// starts [default: run and bench, on the CPU and CUDA: what is free after loading; otherwise no limit]
    #[arg(long, value_name = "SIZE", value_parser = room)]
    pub(super) memory: Option<u64>,
}

/// Parses a size above 0.
fn room(text: &str) -> std::result::Result<u64, String> {
    parse_bytes(text).and_then(|bytes| if bytes > 0 { Ok(bytes) } else { Err(format!("'{text}' is not above 0")) })
}

impl ModelArgs {
    /// The folder to load.
    pub fn folder(&self) -> Result<PathBuf> {
        Ok(self.resolved()?)
    }

    fn resolved(&self) -> std::result::Result<PathBuf, ModelError> {
        let user = std::env::home_dir();
        let cache = hub::cache_folder(self.hub_cache.as_deref(), self.hf_home.as_deref(), user.as_deref());
        hub::resolve(&self.model, &cache)
    }

    /// The number format of the transformer on `device`.
    pub(super) fn precision(&self, device: DeviceChoice) -> Precision {
        self.precision.unwrap_or_else(|| Precision::native(device))
    }

    /// Options for the conversion of prompts to tokens.
    pub(super) fn texts(&self) -> TextOptions {
        TextOptions { max_tokens: self.max_tokens, clean_caption: self.clean_caption }
    }

    /// Loads the model.
    pub(super) fn load(&self, device: DeviceChoice) -> Result<Pipeline> {
        Ok(self.open(device)?)
    }

    /// Loads the model; the error is for a caller that is not the command line.
    pub(super) fn open(&self, device: DeviceChoice) -> std::result::Result<Pipeline, ModelError> {
        let dtype = self.precision(device).dtype();
        let pipeline = Pipeline::load_with(&self.resolved()?, device.open()?, dtype, self.texts())?;
        Ok(if self.vae_tiling { pipeline.with_tiles() } else { pipeline })
    }
}
