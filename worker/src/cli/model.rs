//! Which model to load: the same arguments for every verb.

use std::path::PathBuf;

use clap::Args;

use super::Result;
use crate::evaluator::device::{DeviceChoice, Precision};
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
    /// What numbers the transformer computes with: f32, f16 or bf16 [default: bf16 on CUDA, f32 elsewhere]
    #[arg(long)]
    precision: Option<Precision>,
    /// Bytes that a run may take, weights included, such as 8G; a schedule that needs more is refused before it runs
    /// [default: what is free with model and metrics loaded, on the CPU and on CUDA devices]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) memory: Option<u64>,
}

/// Reads `512M`, `8G`, `1.5G`; a bare number is bytes. Units are powers of 1000, as in tables.
fn size(text: &str) -> std::result::Result<u64, String> {
    let wrong = || format!("'{text}' is no size; write it like 512M or 8G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].trim_end_matches(['b', 'B']) {
        "" => 1e0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        _ => return Err(wrong()),
    };
    let count: f64 = digits.parse().map_err(|_| wrong())?;
    if count > 0.0 && count.is_finite() { Ok((count * unit) as u64) } else { Err(wrong()) }
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

    /// Loads it.
    pub(super) fn load(&self, device: DeviceChoice) -> Result<Pipeline> {
        let pipeline = Pipeline::load_as(&self.folder()?, device.open()?, self.precision(device).dtype())?;
        Ok(if self.vae_tiling { pipeline.with_tiles() } else { pipeline })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(
            [size("512M"), size("8GB"), size("1.5k"), size("7")],
            [Ok(512_000_000), Ok(8_000_000_000), Ok(1500), Ok(7)]
        );
        for bad in ["", "G", "-1G", "0", "8Q", "8 G"] {
            assert!(size(bad).is_err(), "{bad:?} must be refused");
        }
    }
}
