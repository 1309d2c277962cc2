//! One evaluation: runs a candidate's batches with uncached ones between them and collects what they give.
//!
//! Does not keep anything for the next evaluation: that is `diffusion.rs`.

use evocache_proto::domain::{MeasurementPlan, MetricValues, Profile, Schedule};

use super::api::{CancelToken, EvaluateError, Task};
use super::drift;
use super::energy::{self, EnergyMeter, Reading};
use super::pipeline::{Generated, Pipeline};
use super::prepared::{Prepared, microseconds_per_image};
use super::timing::{Turn, batches, is_timed, turns};
use crate::metrics::Metric;
use crate::picture::Picture;

/// Longest side of a thumbnail in pixels; as a PNG it stays below
/// [`MAX_THUMBNAIL`](evocache_proto::domain::Measurement::MAX_THUMBNAIL).
const THUMBNAIL_SIDE: usize = 256;

/// The runs of one candidate under a prepared calibration.
pub(super) struct Evaluation<'a> {
    prepared: &'a Prepared,
    pipeline: &'a Pipeline,
    schedule: &'a Schedule,
    /// How many prompts of the calibration are used, from the first.
    prompts: usize,
    /// The batches `(first, count)` of these prompts.
    batches: Vec<(usize, usize)>,
    cancel: &'a CancelToken,
}

/// What the runs of an evaluation gave.
#[derive(Default)]
pub(super) struct Collected {
    /// Values per metric and prompt.
    pub(super) metrics: Vec<MetricValues>,
    /// The candidate's latency per timed batch, in microseconds per image.
    pub(super) latency_us: Vec<f64>,
    /// The uncached latency per batch, in microseconds per image.
    pub(super) baseline_latency_us: Vec<f64>,
    /// PNG files of the first pictures.
    pub(super) thumbnails: Vec<Vec<u8>>,
    /// Joules per prompt, on devices with an energy counter.
    energy: Vec<f64>,
    /// Joules per image of each uncached batch.
    baseline_energy: Vec<f64>,
}

impl<'a> Evaluation<'a> {
    /// Fails if the calibration does not list the schedule's step count or has fewer prompts than the task asks for.
    pub(super) fn new(
        prepared: &'a Prepared,
        pipeline: &'a Pipeline,
        task: Task<'a>,
        cancel: &'a CancelToken,
    ) -> Result<Self, EvaluateError> {
        let (schedule, listed) = (task.schedule, &prepared.calibration.sampling.steps);
        if !listed.contains(&schedule.steps()) {
            return Err(EvaluateError::Schedule(format!(
                "it has {} steps, but the calibration lists {listed:?}",
                schedule.steps()
            )));
        }
        let prompts = prepared.prompts(task.prompts)?;
        let batches = batches(prompts, prepared.calibration.plan.batch as usize);
        Ok(Self { prepared, pipeline, schedule, prompts, batches, cancel })
    }

    /// Predicted peak memory of the candidate's largest batch, in bytes.
    pub(super) fn peak_memory(&self) -> u64 {
        let largest = self.batches.iter().map(|&(_, count)| count as u64).max().unwrap_or(1);
        self.prepared.memory.peak(self.schedule, &self.prepared.cost, largest)
    }

    /// Images in a timed batch.
    pub(super) fn batch_size(&self) -> usize {
        self.batches[0].1
    }

    /// Runs the candidate as often as the plan asks for, and keeps nothing.
    pub(super) fn warm_up(&self) -> Result<(), EvaluateError> {
        for i in 0..self.plan().warmup as usize {
            self.prepared.generate(self.pipeline, self.schedule, self.batches[i % self.batches.len()], self.cancel)?;
        }
        Ok(())
    }

    /// Runs all batches and scores the candidate's pictures.
    pub(super) fn measure(
        &self,
        metrics: &[Box<dyn Metric>],
        meter: Option<&dyn EnergyMeter>,
    ) -> Result<Collected, EvaluateError> {
        let mut collected = Collected { metrics: self.unscored(metrics), ..Collected::default() };
        for turn in turns(&self.batches, self.plan().repeats as usize) {
            match turn {
                Turn::Baseline { batch } => self.run_uncached(batch, meter, &mut collected)?,
                Turn::Candidate { batch, first } => {
                    let scored_by = first.then_some(metrics);
                    self.run_candidate(batch, scored_by, meter, &mut collected)?;
                }
            }
        }
        if meter.is_some() {
            let (values, baseline) = (std::mem::take(&mut collected.energy), &collected.baseline_energy);
            let baseline_mean = baseline.iter().sum::<f64>() / baseline.len() as f64;
            collected.metrics.push(MetricValues { name: energy::METRIC.into(), values, baseline_mean });
        }
        Ok(collected)
    }

    /// Repeats the latencies while the device is slower than in the `recent` uncached batches of earlier evaluations. If
    /// it stays slower, that is its speed from now on: forgets the recent ones. Returns how often it was slower.
    pub(super) fn repeat_while_disturbed(
        &self,
        collected: &mut Collected,
        recent: &mut Vec<f64>,
    ) -> Result<u32, EvaluateError> {
        let mut disturbed = 0;
        while drift::disturbed(&collected.baseline_latency_us, recent) {
            disturbed += 1;
            if disturbed > drift::REPEATS {
                tracing::warn!("the device is still slower than before; discarding earlier uncached latencies");
                recent.clear();
                break;
            }
            tracing::warn!("the uncached batches took longer than before; repeating the measurement");
            (collected.latency_us, collected.baseline_latency_us) = self.time_again()?;
        }
        Ok(disturbed)
    }

    /// The calibration profile of the uncached run with the candidate's step count, or `None` if it cannot be made.
    pub(super) fn profile(&self) -> Result<Option<Profile>, EvaluateError> {
        match self.prepared.profile(self.pipeline, self.schedule.steps(), self.prompts, self.cancel) {
            Err(EvaluateError::Cancelled) => Err(EvaluateError::Cancelled),
            // The profile is optional: do not lose the measurement because it, for instance, does not fit into memory.
            Err(error) => {
                tracing::warn!("no calibration profile: {error}");
                Ok(None)
            }
            Ok(profile) => Ok(profile),
        }
    }

    fn plan(&self) -> &MeasurementPlan {
        &self.prepared.calibration.plan
    }

    /// The metrics with the uncached run's mean over the used prompts, and no values yet.
    fn unscored(&self, metrics: &[Box<dyn Metric>]) -> Vec<MetricValues> {
        let uncached = metrics.iter().zip(&self.prepared.baseline_values);
        uncached
            .map(|(metric, baseline)| MetricValues {
                name: metric.declaration().name,
                values: Vec::with_capacity(self.prompts),
                baseline_mean: baseline[..self.prompts].iter().sum::<f64>() / self.prompts as f64,
            })
            .collect()
    }

    fn run_uncached(
        &self,
        batch: usize,
        meter: Option<&dyn EnergyMeter>,
        collected: &mut Collected,
    ) -> Result<(), EvaluateError> {
        let batch = self.batches[batch];
        let reading = Reading::start(meter)?;
        let (_, took) = self.prepared.generate(self.pipeline, &self.prepared.baseline, batch, self.cancel)?;
        collected.baseline_energy.extend(reading.per_image(batch.1)?);
        collected.baseline_latency_us.push(microseconds_per_image(batch, took));
        Ok(())
    }

    /// Runs one of the candidate's batches. Without metrics it counts for its latency only.
    fn run_candidate(
        &self,
        batch: usize,
        scored_by: Option<&[Box<dyn Metric>]>,
        meter: Option<&dyn EnergyMeter>,
        collected: &mut Collected,
    ) -> Result<(), EvaluateError> {
        let (first, count) = self.batches[batch];
        let reading = Reading::start(meter)?;
        let (generated, took) = self.prepared.generate(self.pipeline, self.schedule, (first, count), self.cancel)?;
        if is_timed(&self.batches, batch) {
            collected.latency_us.push(microseconds_per_image((first, count), took));
        }
        let Some(metrics) = scored_by else { return Ok(()) };
        if let Some(joules) = reading.per_image(count)? {
            collected.energy.extend(std::iter::repeat_n(joules, count));
        }
        self.score(metrics, first, &generated, collected)?;
        self.add_thumbnails(first, count, &generated, collected)
    }

    fn score(
        &self,
        metrics: &[Box<dyn Metric>],
        first: usize,
        generated: &Generated,
        collected: &mut Collected,
    ) -> Result<(), EvaluateError> {
        for (metric, result) in metrics.iter().zip(&mut collected.metrics) {
            let values = metric.measure(first, &generated.pictures)?;
            self.prepared.all_finite(&result.name, first, &values)?;
            result.values.extend(values);
        }
        Ok(())
    }

    /// Makes thumbnails of the pictures for which the plan asks for one.
    fn add_thumbnails(
        &self,
        first: usize,
        count: usize,
        generated: &Generated,
        collected: &mut Collected,
    ) -> Result<(), EvaluateError> {
        for index in 0..count.min((self.plan().thumbnails as usize).saturating_sub(first)) {
            let picture = Picture::from_batch(&generated.pictures, index)?;
            collected.thumbnails.push(picture.shrunk_to(THUMBNAIL_SIDE).png()?);
        }
        Ok(())
    }

    /// Times the first batch with the schedule and uncached in turn, each as often as the plan asks for. Returns both
    /// lists of latencies, in microseconds per image.
    fn time_again(&self) -> Result<(Vec<f64>, Vec<f64>), EvaluateError> {
        let (mut candidate, mut uncached) = (Vec::new(), Vec::new());
        let first = &self.batches[..1];
        for turn in turns(first, self.plan().repeats as usize) {
            let (schedule, times) = match turn {
                Turn::Candidate { .. } => (self.schedule, &mut candidate),
                Turn::Baseline { .. } => (&self.prepared.baseline, &mut uncached),
            };
            let (_, took) = self.prepared.generate(self.pipeline, schedule, first[0], self.cancel)?;
            times.push(microseconds_per_image(first[0], took));
        }
        Ok((candidate, uncached))
    }
}
