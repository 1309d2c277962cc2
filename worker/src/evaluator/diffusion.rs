//! The evaluator for diffusion transformers in diffusers folders.
//!
//! A latency is the time of a batch from noise to pictures on the CPU (caption projection, all steps, decoder),
//! divided by its images. It excludes text encoding and scoring. The runs for a calibration profile are not timed and
//! come last, so that they do not disturb timed runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{Device, Tensor};
use evocache_proto::domain::{
    Calibration, CostModel, Declaration, Measurement, MetricDeclaration, MetricValues, Schedule,
};

use super::api::{CancelToken, Evaluate, EvaluateError, Task};
use super::clock::Stopwatch;
use super::device::{DeviceChoice, Precision};
use super::drift;
use super::energy::{self, EnergyMeter, Reading};
use super::pipeline::Pipeline;
use super::prepared::{Prepared, microseconds_per_image};
use super::threads;
use super::timing::{Turn, batches, is_timed, turns};
use crate::files::ModelError;
use crate::files::fingerprint::Snapshot;
use crate::metrics::Metric;
use crate::metrics::choice::{MetricChoice, MetricKind};
use crate::models::diffusers::TextOptions;
use crate::picture::Picture;
use crate::samplers::SamplerOptions;

/// How many uncached batches an evaluation is compared with: its own and the latest of earlier evaluations. Its own few
/// give a poor estimate, and more of them would take as long as the candidate.
const BASELINE_WINDOW: usize = 8;

/// Longest side of a thumbnail in pixels; as a PNG it stays below [`Measurement::MAX_THUMBNAIL`].
const THUMBNAIL_SIDE: usize = 256;

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
        let (metrics, mut declared) = load_metrics(options, &device)?;
        let energy = energy::meter(options.device);
        declared.extend(energy.is_some().then(energy::declaration));
        let declaration = Declaration {
            name: options.worker_name.clone(),
            device: options.device.describe(),
            software: format!("evocache-worker {}", env!("CARGO_PKG_VERSION")),
            model: options.model_name.clone().unwrap_or_else(|| pipeline.folder().name()),
            fingerprint: fingerprint(&pipeline, options)?,
            layout: pipeline.layout().as_ref().clone(),
            forecast: true,
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

    /// Fails unless every value is finite.
    fn all_finite(what: &str, first: usize, values: &[f64], calibration: &Calibration) -> Result<(), EvaluateError> {
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(i) => Err(EvaluateError::NotFinite {
                what: what.into(),
                prompt: first + i,
                text: calibration.prompts[first + i].text.clone(),
            }),
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
            Self::all_finite(&format!("{} of the uncached run", metric.declaration().name), 0, &values, calibration)?;
            prepared.baseline_values.push(values);
        }
        self.prepared = Some(prepared);
        self.recent_baselines.clear();
        Ok(())
    }

    fn evaluate_here(&mut self, task: Task<'_>, cancel: &CancelToken) -> Result<Measurement, EvaluateError> {
        let prepared = self.prepared.as_ref().ok_or(EvaluateError::NotPrepared)?;
        let Calibration { sampling, plan, .. } = &prepared.calibration;
        let schedule = task.schedule;
        if !sampling.steps.contains(&schedule.steps()) {
            return Err(EvaluateError::Schedule(format!(
                "it has {} steps, but the calibration lists {:?}",
                schedule.steps(),
                sampling.steps
            )));
        }
        let prompts = prepared.prompts(task.prompts)?;
        let batches = batches(prompts, plan.batch as usize);
        let largest = batches.iter().map(|&(_, count)| count as u64).max().unwrap_or(1);
        self.fits("the schedule", prepared.memory.peak(schedule, &prepared.cost, largest))?;
        let stopwatch = Stopwatch::start();
        for i in 0..plan.warmup as usize {
            prepared.generate(&self.pipeline, schedule, batches[i % batches.len()], cancel)?;
        }
        let mut metrics: Vec<MetricValues> = self
            .metrics
            .iter()
            .zip(&prepared.baseline_values)
            .map(|(metric, baseline)| MetricValues {
                name: metric.declaration().name,
                values: Vec::with_capacity(prompts),
                baseline_mean: baseline[..prompts].iter().sum::<f64>() / prompts as f64,
            })
            .collect();
        let (mut latency_us, mut baseline_latency_us, mut thumbnails) = (Vec::new(), Vec::new(), Vec::new());
        let (mut energy, mut baseline_energy) = (Vec::new(), Vec::new());
        let meter = self.energy.as_deref();
        for turn in turns(&batches, plan.repeats as usize) {
            match turn {
                Turn::Baseline { batch } => {
                    let reading = Reading::start(meter)?;
                    let (_, took) = prepared.generate(&self.pipeline, &prepared.baseline, batches[batch], cancel)?;
                    baseline_energy.extend(reading.per_image(batches[batch].1)?);
                    baseline_latency_us.push(microseconds_per_image(batches[batch], took));
                }
                Turn::Candidate { batch, first: is_new } => {
                    let reading = Reading::start(meter)?;
                    let (generated, took) = prepared.generate(&self.pipeline, schedule, batches[batch], cancel)?;
                    if is_timed(&batches, batch) {
                        latency_us.push(microseconds_per_image(batches[batch], took));
                    }
                    if !is_new {
                        continue;
                    }
                    let (first, count) = batches[batch];
                    energy.extend(reading.per_image(count)?.into_iter().flat_map(|joules| vec![joules; count]));
                    for (metric, result) in self.metrics.iter().zip(&mut metrics) {
                        let values = metric.measure(first, &generated.pictures)?;
                        Self::all_finite(&result.name, first, &values, &prepared.calibration)?;
                        result.values.extend(values);
                    }
                    for index in 0..count.min((plan.thumbnails as usize).saturating_sub(first)) {
                        let picture = Picture::from_batch(&generated.pictures, index)?;
                        thumbnails.push(picture.shrunk_to(THUMBNAIL_SIDE).png()?);
                    }
                }
            }
        }
        if meter.is_some() {
            let baseline_mean = baseline_energy.iter().sum::<f64>() / baseline_energy.len() as f64;
            metrics.push(MetricValues { name: energy::METRIC.into(), values: energy, baseline_mean });
        }
        let recent = self.recent_baselines.entry(batches[0].1).or_default();
        let mut disturbed = 0;
        while drift::disturbed(&baseline_latency_us, recent) {
            disturbed += 1;
            if disturbed > drift::REPEATS {
                tracing::warn!("the device is still slower than before; discarding earlier uncached latencies");
                recent.clear();
                break;
            }
            tracing::warn!("the uncached batches took longer than before; repeating the measurement");
            (latency_us, baseline_latency_us) = prepared.times(&self.pipeline, schedule, &batches, cancel)?;
        }
        let profile =
            if task.profile { prepared.profile(&self.pipeline, schedule.steps(), prompts, cancel) } else { Ok(None) };
        let profile = match profile {
            Err(EvaluateError::Cancelled) => return Err(EvaluateError::Cancelled),
            // The profile is optional: do not lose the measurement because it, for instance, does not fit into memory.
            Err(error) => {
                tracing::warn!("no calibration profile: {error}");
                None
            }
            Ok(profile) => profile,
        };
        let own = baseline_latency_us.len();
        recent.append(&mut baseline_latency_us);
        let stale = recent.len().saturating_sub(own.max(BASELINE_WINDOW));
        recent.drain(..stale);
        Ok(Measurement {
            metrics,
            latency_us,
            baseline_latency_us: recent.clone(),
            macs: schedule.macs(&prepared.cost),
            baseline_macs: prepared.baseline.macs(&prepared.cost),
            peak_cache_bytes: schedule.peak_cache_bytes(&prepared.cost),
            device_time: stopwatch.elapsed(),
            disturbed,
            thumbnails,
            profile,
        })
    }
}

/// The folder's fingerprint, extended by the options that change its pictures: results of different options must not be
/// compared.
fn fingerprint(pipeline: &Pipeline, options: &EvaluatorOptions) -> Result<String, ModelError> {
    let mut fingerprint = pipeline.folder().fingerprint()?.to_string();
    if options.precision != Precision::F32 {
        fingerprint.push_str(&format!("-{}", options.precision));
    }
    if options.vae_tiling {
        fingerprint.push_str("-tiles");
    }
    fingerprint.push_str(&options.texts.mark());
    Ok(fingerprint)
}

/// Metrics with their declarations.
type Metrics = (Vec<Box<dyn Metric>>, Vec<MetricDeclaration>);

/// Loads CLIP score if a CLIP is available, PSNR, then the chosen metrics. A declaration contains a digest of the
/// weights, because a search accepts only workers with equal declarations.
fn load_metrics(options: &EvaluatorOptions, device: &Device) -> Result<Metrics, ModelError> {
    let inside = options.model.join("clip");
    let clip = options.clip.clone().or_else(|| inside.is_dir().then_some(inside));
    let usual = clip.map(|path| MetricChoice { kind: MetricKind::ClipScore, path });
    let usual = usual.into_iter().chain([MetricChoice { kind: MetricKind::Psnr, path: PathBuf::new() }]);
    // A metric that is chosen by name replaces the default one.
    let chosen = |usual: &MetricChoice| options.metrics.iter().any(|choice| choice.kind == usual.kind);
    let usual: Vec<MetricChoice> = usual.filter(|usual| !chosen(usual)).collect();
    let (mut metrics, mut declared) = (Vec::new(), Vec::<MetricDeclaration>::new());
    for choice in usual.iter().chain(&options.metrics) {
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use evocache_proto::domain::{MeasurementPlan, Prompt, Sampling};

    use super::*;

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
