//! Shared by the integration tests: the bundled model and its evaluator, golden tensors, and a forward pass without the
//! executor.

#![expect(dead_code, reason = "each test file uses another part")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use evocache_proto::domain::{Decision, Layout, Schedule};
use evocache_worker::evaluator::api::EvaluateError;
use evocache_worker::evaluator::device::{DeviceChoice, Precision};
use evocache_worker::evaluator::pipeline::Pipeline;
use evocache_worker::evaluator::{DiffusionEvaluator, EvaluatorOptions};
use evocache_worker::metrics::choice::MetricChoice;
use evocache_worker::models::block_model::{BlockModel, Conditioned};
use std::sync::Arc;

/// The bundled model's folder.
pub(crate) fn model_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji")
}

/// The bundled model on the CPU.
pub(crate) fn pipeline() -> Pipeline {
    Pipeline::load(&model_dir(), Device::Cpu).unwrap()
}

/// The bundled model's evaluator on the CPU.
pub(crate) fn evaluator() -> DiffusionEvaluator {
    evaluator_with(Vec::new()).unwrap()
}

/// The same with additional metrics.
pub(crate) fn evaluator_with(metrics: Vec<MetricChoice>) -> Result<DiffusionEvaluator, EvaluateError> {
    DiffusionEvaluator::open(&EvaluatorOptions {
        model: model_dir(),
        model_name: None,
        worker_name: "test".into(),
        labels: Default::default(),
        memory_bytes: 0,
        device: DeviceChoice::Cpu,
        precision: Precision::F32,
        clip: None,
        metrics,
        vae_tiling: false,
        texts: Default::default(),
        samplers: Default::default(),
        memory: None,
    })
}

/// Reference tensors made with diffusers, and the settings they were made with.
pub(crate) struct Golden {
    tensors: HashMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

impl Golden {
    /// Reads `golden/<name>.safetensors`.
    pub(crate) fn read(name: &str) -> Self {
        let bytes = std::fs::read(model_dir().join("golden").join(format!("{name}.safetensors"))).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        Self {
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap(),
            metadata: metadata.metadata().clone().unwrap(),
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.metadata.get(name).unwrap_or_else(|| panic!("no golden setting {name}"))
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> T {
        serde_json::from_str(self.text(name)).unwrap()
    }
}

/// ‖a − b‖ / ‖b‖.
pub(crate) fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    let a = &a.to_dtype(b.dtype()).unwrap();
    assert_eq!(a.dims(), b.dims());
    let norm = |t: &Tensor| f64::from(t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()).sqrt();
    norm(&(a - b).unwrap()) / norm(b)
}

/// mean |a − b|.
pub(crate) fn mean_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    f64::from((a - b).unwrap().abs().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap())
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Asserts that two tensors are equal to the last bit.
pub(crate) fn assert_identical(a: &Tensor, b: &Tensor, what: &str) {
    let bits = |t: &Tensor| values(t).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert!(a.dims() == b.dims() && bits(a) == bits(b), "{what} differ");
}

/// A forward pass of the whole model, without the executor.
pub(crate) fn plain_forward(
    model: &dyn BlockModel,
    bound: &dyn Conditioned,
    latents: &Tensor,
    timestep: f64,
) -> Tensor {
    let mut state = bound.prepare(latents, timestep).unwrap();
    for index in 0..model.layout().slots() {
        let slot = model.layout().slot(index);
        let output = state.run(slot).unwrap();
        state.combine(slot, &output).unwrap();
    }
    state.finish().unwrap()
}

/// A schedule of pseudo-random decisions that computes `computed` percent of all slots.
pub(crate) fn random_schedule(layout: &Arc<Layout>, steps: u32, seed: u64, computed: u64, forecasts: bool) -> Schedule {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Schedule::from_fn(layout.clone(), steps, |_, _| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 100 {
            x if x < computed => Decision::Compute,
            x if forecasts && x % 2 == 0 => Decision::Forecast,
            _ => Decision::Reuse,
        }
    })
    .unwrap()
}

/// Copies a model folder without the folders that loading does not need.
pub(crate) fn copy_model(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_name().to_str().unwrap() {
            "golden" | "train" => {}
            _ if entry.file_type().unwrap().is_dir() => copy_model(&entry.path(), &target),
            _ => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
