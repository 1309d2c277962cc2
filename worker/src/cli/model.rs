//! Which model to load: the same arguments for every verb.

use std::path::PathBuf;

use clap::Args;
use evocache_proto::units::parse_bytes;

use super::Result;
use crate::evaluator::device::{DeviceChoice, Precision};
use crate::evaluator::pipeline::Pipeline;
use crate::files::hub;
use crate::models::diffusers::TextOptions;

/// The model's folder, or its name on the hub.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Model folder, as diffusers' save_pretrained writes it, or OWNER/NAME[@REVISION] on the Hugging Face hub if it is in
    /// the local cache
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Where the hub's tools keep downloads [default: hub in HF_HOME, or ~/.cache/huggingface/hub]
    #[arg(long, env = "HF_HUB_CACHE", value_name = "DIR")]
    hub_cache: Option<PathBuf>,
    /// The hub's tools' own folder, only looked at without --hub-cache
    #[arg(long, env = "HF_HOME", value_name = "DIR", hide = true)]
    hf_home: Option<PathBuf>,
    /// Decode pictures larger than the VAE was made for in tiles: less memory, slightly other pictures
    #[arg(long)]
    pub vae_tiling: bool,
    /// Tokens that T5's texts are padded and cut to [default: the pipeline's: 120 for PixArt-α, 300 for PixArt-Σ, 512 for FLUX,
    /// 256 for Stable Diffusion 3; or as the folder's model_index.json says]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Clean PixArt's captions of addresses, file names and the like, as its pipelines in diffusers do by themselves
    #[arg(long)]
    clean_caption: bool,
    /// What numbers the transformer computes with: f32, f16 or bf16 [default: bf16 on CUDA, f32 elsewhere]
    #[arg(long)]
    precision: Option<Precision>,
    /// Memory that a run may take, weights included, such as 8G or 8GiB; a schedule that needs more is refused before it runs
    /// [default: what is free with model and metrics loaded, on the CPU and on CUDA devices]
    #[arg(long, value_name = "SIZE", value_parser = room)]
    pub(super) memory: Option<u64>,
}

/// A size that something fits into.
fn room(text: &str) -> std::result::Result<u64, String> {
    parse_bytes(text).and_then(|bytes| if bytes > 0 { Ok(bytes) } else { Err(format!("'{text}' is no room at all")) })
}

impl ModelArgs {
    /// The folder to load.
    pub fn folder(&self) -> Result<PathBuf> {
        let user = std::env::home_dir();
        let cache = hub::cache_folder(self.hub_cache.as_deref(), self.hf_home.as_deref(), user.as_deref());
        Ok(hub::resolve(&self.model, &cache)?)
    }

    /// What numbers to compute with on `device`.
    pub(super) fn precision(&self, device: DeviceChoice) -> Precision {
        self.precision.unwrap_or_else(|| Precision::native(device))
    }

    /// How prompts are read.
    pub(super) fn texts(&self) -> TextOptions {
        TextOptions { max_tokens: self.max_tokens, clean_caption: self.clean_caption }
    }

    /// Loads it.
    pub(super) fn load(&self, device: DeviceChoice) -> Result<Pipeline> {
        let dtype = self.precision(device).dtype();
        let pipeline = Pipeline::load_with(&self.folder()?, device.open()?, dtype, self.texts())?;
        Ok(if self.vae_tiling { pipeline.with_tiles() } else { pipeline })
    }
}
