//! What a diffusion evaluator loads and how it runs, and what of that makes its results comparable.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Device;
use evocache_proto::domain::MetricDeclaration;

use super::device::{DeviceChoice, Precision};
use super::pipeline::Pipeline;
use crate::files::ModelError;
use crate::files::fingerprint::Snapshot;
use crate::metrics::Metric;
use crate::metrics::choice::{MetricChoice, MetricKind};
use crate::models::diffusers::TextOptions;
use crate::samplers::SamplerOptions;

/// What to load and how to run it.
#[derive(Debug, Clone)]
pub struct EvaluatorOptions {
    /// The model's folder.
    pub model: PathBuf,
    /// The model name to declare; `None`: the folder's name.
    pub model_name: Option<String>,
    /// The worker's display name.
    pub worker_name: String,
    /// The operator's labels for this worker.
    pub labels: BTreeMap<String, String>,
    /// Memory of the device in bytes; 0: unknown.
    pub memory_bytes: u64,
    /// The device to run on.
    pub device: DeviceChoice,
    /// The transformer's number format.
    pub precision: Precision,
    /// A CLIP folder; `None`: the folder `clip` inside the model's, if it exists. Without either, no CLIP score is
    /// measured.
    pub clip: Option<PathBuf>,
    /// Metrics in addition to CLIP score and PSNR.
    pub metrics: Vec<MetricChoice>,
    /// Whether to decode large pictures in tiles.
    pub vae_tiling: bool,
    /// How prompts become tokens.
    pub texts: TextOptions,
    /// Overrides of the sampler's settings.
    pub samplers: SamplerOptions,
    /// Bytes that a run may use, including weights; `None`: what is free after model and metrics are loaded.
    pub memory: Option<u64>,
}

/// Metrics with their declarations.
type Metrics = (Vec<Box<dyn Metric>>, Vec<MetricDeclaration>);

impl EvaluatorOptions {
    /// The folder's fingerprint, extended by the options that change its pictures: results of different options must not be
    /// compared.
    pub(super) fn fingerprint(&self, pipeline: &Pipeline) -> Result<String, ModelError> {
        let mut fingerprint = pipeline.folder().fingerprint()?.to_string();
        if self.precision != Precision::F32 {
            fingerprint.push_str(&format!("-{}", self.precision));
        }
        if self.vae_tiling {
            fingerprint.push_str("-tiles");
        }
        fingerprint.push_str(&self.texts.mark());
        Ok(fingerprint)
    }

    /// Loads CLIP score if a CLIP is available, PSNR, then the chosen metrics. A declaration contains a digest of the
    /// weights, because a search accepts only workers with equal declarations.
    pub(super) fn load_metrics(&self, device: &Device) -> Result<Metrics, ModelError> {
        let inside = self.model.join("clip");
        let clip = self.clip.clone().or_else(|| inside.is_dir().then_some(inside));
        let usual = clip.map(|path| MetricChoice { kind: MetricKind::ClipScore, path });
        let usual = usual.into_iter().chain([MetricChoice { kind: MetricKind::Psnr, path: PathBuf::new() }]);
        // A metric that is chosen by name replaces the default one.
        let chosen = |usual: &MetricChoice| self.metrics.iter().any(|choice| choice.kind == usual.kind);
        let usual: Vec<MetricChoice> = usual.filter(|usual| !chosen(usual)).collect();
        let (mut metrics, mut declared) = (Vec::new(), Vec::<MetricDeclaration>::new());
        for choice in usual.iter().chain(&self.metrics) {
            let files = Snapshot::of_path(&choice.path);
            let metric = choice.load(device)?;
            let mut declaration = metric.declaration();
            if declared.iter().any(|other| other.name == declaration.name) {
                return Err(ModelError::Input(format!("metric '{}' is chosen twice", declaration.name)));
            }
            if let Some(files) = files {
                let digest = files.fingerprint()?.to_string();
                declaration.description.push_str(&format!(", by weights {}", &digest[..12]));
            }
            metrics.push(metric);
            declared.push(declaration);
        }
        Ok((metrics, declared))
    }
}
