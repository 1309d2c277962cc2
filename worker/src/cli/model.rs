//! Which model to load: the same arguments for every verb.

use std::path::PathBuf;

use clap::Args;

use super::Result;
use crate::evaluator::device::DeviceChoice;
use crate::evaluator::pipeline::Pipeline;
use crate::files::hub;

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
}

impl ModelArgs {
    /// The folder to load.
    pub fn folder(&self) -> Result<PathBuf> {
        let user = std::env::home_dir();
        let cache = hub::cache_folder(self.hub_cache.as_deref(), self.hf_home.as_deref(), user.as_deref());
        Ok(hub::resolve(&self.model, &cache)?)
    }

    /// Loads it.
    pub(super) fn load(&self, device: DeviceChoice) -> Result<Pipeline> {
        let pipeline = Pipeline::load(&self.folder()?, device.open()?)?;
        Ok(if self.vae_tiling { pipeline.with_tiles() } else { pipeline })
    }
}
