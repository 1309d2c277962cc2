//! The evaluator for diffusion transformers in diffusers folders.
//!
//! A latency is the time of a batch from noise to pictures on the CPU (caption projection, all steps, decoder),
//! divided by its images. It excludes text encoding and scoring. The runs for a calibration profile are not timed and
//! come last, so that they do not disturb timed runs.

use std::collections::BTreeMap;

use candle_core::Tensor;
use evocache_proto::domain::{Calibration, CostModel, Declaration, Measurement, Schedule};

use super::api::{CancelToken, Evaluate, EvaluateError, Task};
use super::clock::Stopwatch;
use super::energy::{self, EnergyMeter};
use super::evaluation::Evaluation;
use super::options::EvaluatorOptions;
use super::pipeline::Pipeline;
use super::prepared::Prepared;
use super::threads;
use super::timing::batches;
use crate::files::ModelError;
use crate::metrics::Metric;
use crate::models::block_model::GuidanceKind;

/// How many uncached batches an evaluation is compared with: its own and the latest of earlier evaluations. Its own few
/// give a poor estimate, and more of them would take as long as the candidate.
const BASELINE_WINDOW: usize = 8;

/// Evaluates schedules with one loaded model on one device.
pub struct DiffusionEvaluator {
    pipeline: Pipeline,
    metrics: Vec<Box<dyn Metric>>,
    declaration: Declaration,
    energy: Option<Box<dyn EnergyMeter>>,
    prepared: Option<Prepared>,
    memory: Option<u64>,
    /// Latencies of the latest uncached batches of the calibration, oldest first, by batch size: a smaller batch takes
    /// longer per image.
    recent_baselines: BTreeMap<usize, Vec<f64>>,
}

impl From<ModelError> for EvaluateError {
    fn from(error: ModelError) -> Self {
        if error.is_out_of_memory() {
            // Not retryable: the same run would need the same memory again.
            let hint = "use a smaller batch, smaller pictures or --vae-tiling; with --memory, runs that do not fit are \
                        refused before they start";
            return Self::Failed { message: error.to_string(), hint: Some(hint.into()), retryable: false };
        }
        let retryable = matches!(error, ModelError::Tensor(_) | ModelError::Io { .. });
        Self::Failed { hint: error.hint(), message: error.to_string(), retryable }
    }
}

impl From<candle_core::Error> for EvaluateError {
    fn from(error: candle_core::Error) -> Self {
        ModelError::from(error).into()
    }
}

impl DiffusionEvaluator {
    /// Loads the model and its metrics.
    pub fn open(options: &EvaluatorOptions) -> Result<Self, EvaluateError> {
        let device = options.device.open()?;
        let pipeline = Pipeline::load_with(&options.model, device.clone(), options.precision.dtype(), options.texts)?
            .with_sampler(&options.samplers)?;
        let pipeline = if options.vae_tiling { pipeline.with_tiles() } else { pipeline };
        let (metrics, mut declared) = options.load_metrics(&device)?;
        let energy = energy::meter(options.device);
        declared.extend(energy.is_some().then(energy::declaration));
        let declaration = Declaration {
            name: options.worker_name.clone(),
            device: options.device.describe(),
            software: format!("evocache-worker {}", env!("CARGO_PKG_VERSION")),
            model: options.model_name.clone().unwrap_or_else(|| pipeline.folder().name()),
            fingerprint: options.fingerprint(&pipeline)?,
            layout: pipeline.layout().as_ref().clone(),
            forecast: true,
            guidance_decisions: pipeline.transformer().guidance() == GuidanceKind::ClassifierFree,
            profiles: true,
            grids: true,
            memory_bytes: options.memory_bytes,
            labels: options.labels.clone(),
            metrics: declared,
            cost: Some(pipeline.cost(pipeline.latent_size(None, None)?, pipeline.guidance(f64::INFINITY))),
        };
        let free = || Some(options.device.free_memory()? + pipeline.weight_bytes());
        let memory = options.memory.or_else(free);
        Ok(Self { pipeline, metrics, declaration, energy, prepared: None, memory, recent_baselines: BTreeMap::new() })
    }

    /// The loaded pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Costs per image under the prepared calibration.
    pub fn cost(&self) -> Option<&CostModel> {
        self.prepared.as_ref().map(|prepared| &prepared.cost)
    }

    /// Fails if a run needs more memory than the limit.
    fn fits(&self, what: &'static str, needed: u64) -> Result<(), EvaluateError> {
        match self.memory {
            Some(limit) if needed > limit => Err(EvaluateError::Memory { what, needed, limit }),
            _ => Ok(()),
        }
    }
}

impl Evaluate for DiffusionEvaluator {
    fn declaration(&self) -> Declaration {
        self.declaration.clone()
    }

    fn prepare(&mut self, calibration: &Calibration, cancel: &CancelToken) -> Result<(), EvaluateError> {
        let device = self.pipeline.device().clone();
        threads::inside(&device, || self.prepare_here(calibration, cancel))
    }

    fn evaluate(&mut self, task: Task<'_>, cancel: &CancelToken) -> Result<Measurement, EvaluateError> {
        let device = self.pipeline.device().clone();
        threads::inside(&device, || self.evaluate_here(task, cancel))
    }
}

impl DiffusionEvaluator {
    fn prepare_here(&mut self, calibration: &Calibration, cancel: &CancelToken) -> Result<(), EvaluateError> {
        if self.prepared.as_ref().is_some_and(|prepared| prepared.calibration == *calibration) {
            return Ok(());
        }
        self.prepared = None;
        let refused = |error: ModelError| match error {
            ModelError::Input(message) => EvaluateError::Calibration(message),
            other => other.into(),
        };
        if calibration.prompts.is_empty() {
            return Err(EvaluateError::Calibration("it has no prompts".into()));
        }
        let sampling = &calibration.sampling;
        let size = self.pipeline.latent_size(sampling.height, sampling.width).map_err(refused)?;
        self.pipeline.sample_on(&sampling.grids).map_err(refused)?;
        for &steps in &sampling.steps {
            self.pipeline.sampler(steps, size).map_err(refused)?;
        }
        let baseline = Schedule::all_compute(self.pipeline.layout().clone(), sampling.baseline_steps())
            .map_err(|error| EvaluateError::Calibration(error.to_string()))?;
        let guidance = self.pipeline.guidance(sampling.guidance_scale);
        let cost = self.pipeline.cost(size, guidance);
        let memory = self.pipeline.memory(size, guidance);
        let largest = calibration.prompts.len().min(calibration.plan.batch.max(1) as usize) as u64;
        self.fits("the uncached run", memory.peak(&baseline, &cost, largest))?;
        let mut texts: Vec<&str> = calibration.prompts.iter().map(|prompt| prompt.text.as_str()).collect();
        texts.push(&sampling.negative_prompt);
        let encoded = self.pipeline.encode(&texts).map_err(refused)?;
        texts.pop();
        let mut prepared = Prepared {
            texts: encoded.batch(0, texts.len())?,
            negative: encoded.batch(texts.len(), 1)?,
            size,
            guidance,
            cost,
            memory,
            baseline,
            baseline_values: Vec::new(),
            calibration: calibration.clone(),
        };
        let batches = batches(texts.len(), calibration.plan.batch as usize);
        let pictures = batches
            .iter()
            .map(|&batch| {
                let pictures = prepared.generate(&self.pipeline, &prepared.baseline, batch, cancel)?.0.pictures;
                tracing::info!("uncached pictures {} of {}", batch.0 + batch.1, texts.len());
                Ok(pictures)
            })
            .collect::<Result<Vec<Tensor>, EvaluateError>>()?;
        for metric in &mut self.metrics {
            metric.prepare(&texts, &pictures)?;
            let mut values = Vec::with_capacity(texts.len());
            for (batch, &(first, _)) in pictures.iter().zip(&batches) {
                values.extend(metric.measure(first, batch)?);
            }
            prepared.all_finite(&format!("{} of the uncached run", metric.declaration().name), 0, &values)?;
            prepared.baseline_values.push(values);
        }
        self.prepared = Some(prepared);
        self.recent_baselines.clear();
        Ok(())
    }

    fn evaluate_here(&mut self, task: Task<'_>, cancel: &CancelToken) -> Result<Measurement, EvaluateError> {
        let prepared = self.prepared.as_ref().ok_or(EvaluateError::NotPrepared)?;
        let evaluation = Evaluation::new(prepared, &self.pipeline, task, cancel)?;
        self.fits("the schedule", evaluation.peak_memory())?;
        let stopwatch = Stopwatch::start();
        evaluation.warm_up()?;
        let mut collected = evaluation.measure(&self.metrics, self.energy.as_deref())?;
        let recent = self.recent_baselines.entry(evaluation.batch_size()).or_default();
        let disturbed = evaluation.repeat_while_disturbed(&mut collected, recent)?;
        let profile = if task.profile { evaluation.profile()? } else { None };
        remember(recent, collected.baseline_latency_us);
        Ok(Measurement {
            metrics: collected.metrics,
            latency_us: collected.latency_us,
            baseline_latency_us: recent.clone(),
            macs: task.schedule.macs(&prepared.cost),
            baseline_macs: prepared.baseline.macs(&prepared.cost),
            peak_cache_bytes: task.schedule.peak_cache_bytes(&prepared.cost),
            device_time: stopwatch.elapsed(),
            disturbed,
            thumbnails: collected.thumbnails,
            profile,
        })
    }
}

/// Appends an evaluation's own latencies to the recent ones and drops the oldest beyond the window, but none of its own.
fn remember(recent: &mut Vec<f64>, own: Vec<f64>) {
    let window = own.len().max(BASELINE_WINDOW);
    recent.extend(own);
    recent.drain(..recent.len().saturating_sub(window));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use evocache_proto::domain::{MeasurementPlan, Prompt, Sampling};

    use super::*;
    use crate::evaluator::device::{DeviceChoice, Precision};
    use crate::evaluator::drift;
    use crate::models::diffusers::TextOptions;
    use crate::samplers::SamplerOptions;

    /// A counter that increases by one joule with each reading.
    struct Steady(Mutex<f64>);

    impl EnergyMeter for Steady {
        fn joules(&self) -> Result<f64, String> {
            let mut total = self.0.lock().map_err(|e| e.to_string())?;
            *total += 1.0;
            Ok(*total)
        }
    }

    fn prepared() -> DiffusionEvaluator {
        let mut evaluator = DiffusionEvaluator::open(&EvaluatorOptions {
            model: concat!(env!("CARGO_MANIFEST_DIR"), "/models/emoji").into(),
            model_name: None,
            worker_name: "test".into(),
            labels: BTreeMap::new(),
            memory_bytes: 0,
            device: DeviceChoice::Cpu,
            precision: Precision::F32,
            clip: None,
            metrics: vec![],
            vae_tiling: false,
            texts: TextOptions::default(),
            samplers: SamplerOptions::default(),
            memory: None,
        })
        .unwrap();
        evaluator.energy = Some(Box::new(Steady(Mutex::new(0.0))));
        let sampling = Sampling {
            steps: vec![2],
            guidance_scale: 1.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        };
        let calibration = Calibration {
            prompts: (0..3).map(|seed| Prompt { text: "an owl".into(), seed }).collect(),
            sampling,
            plan: MeasurementPlan { batch: 2, warmup: 0, repeats: 2, thumbnails: 0 },
        };
        evaluator.prepare(&calibration, &CancelToken::new()).unwrap();
        evaluator
    }

    #[test]
    fn a_disturbed_measurement_is_repeated_so_often_and_says_so() {
        let mut evaluator = prepared();
        let schedule = Schedule::all_compute(evaluator.pipeline.layout().clone(), 2).unwrap();
        let mut measure = |before: f64| {
            evaluator.recent_baselines.insert(2, vec![before; BASELINE_WINDOW]);
            evaluator.evaluate(Task::whole(&schedule), &CancelToken::new()).unwrap()
        };
        // Earlier uncached images took a nanosecond, then an hour.
        let slower = measure(1e-3);
        assert_eq!((slower.disturbed, slower.latency_us.len()), (1 + drift::REPEATS, 2));
        assert!(
            slower.baseline_latency_us.len() == 2 && slower.baseline_latency() > 1.0,
            "earlier latencies are discarded"
        );
        let faster = measure(3.6e9);
        assert_eq!((faster.disturbed, faster.baseline_latency_us.len()), (0, BASELINE_WINDOW));
    }

    #[test]
    fn energy_is_a_metric_of_every_image_where_the_device_tells() {
        let mut evaluator = prepared();
        let schedule = Schedule::all_compute(evaluator.pipeline.layout().clone(), 2).unwrap();
        let measured = evaluator.evaluate(Task::whole(&schedule), &CancelToken::new()).unwrap();
        let energy = measured.metric(energy::METRIC).unwrap();
        // One joule per batch: one batch of two images, and one of the remaining image.
        assert_eq!((energy.values.as_slice(), energy.baseline_mean), (&[0.5, 0.5, 1.0][..], 0.5));
        evaluator.energy = None;
        let measured = evaluator.evaluate(Task::whole(&schedule), &CancelToken::new()).unwrap();
        assert!(measured.metric(energy::METRIC).is_none());
    }
}
