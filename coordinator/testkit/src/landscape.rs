//! Synthetic landscapes for tests: schedules with a known cost and error, so that a search runs without a model.
//!
//! Reusing an output of age `a` in slot `s` is wrong by `sensitivity(s) · a^1.5`; the slots of a step add up as a norm,
//! a step's weight depends on its place, and what went wrong compounds over the steps after it. Taking fewer steps
//! is wrong too. They show the sizes of effects; they predict no model.

use std::sync::Arc;
use std::time::Duration;

use evocache_domain::rng::Stream;
use evocache_proto::domain::{
    Algorithm, Budget, Decision, Direction, Layout, Measurement, MeasurementPlan, MetricValues, ModelRef, Objective,
    Prompt, Sampling, Schedule, SearchSpec, SpecDraft, Strategy,
};

/// A model's answers without a model: how much each slot matters.
pub struct Landscape {
    sensitivity: Vec<f64>,
    baseline_steps: u32,
}

impl Landscape {
    /// A landscape for schedules of this layout; the same one each time.
    pub fn new(layout: &Layout, baseline_steps: u32) -> Self {
        let mut stream = Stream::new(99, "landscape", 0);
        // A few slots matter much and most little, as in a log-normal.
        let sensitivity = (0..layout.slots()).map(|_| 60f64.powf(stream.unit() + stream.unit() - 1.0)).collect();
        Self { sensitivity, baseline_steps }
    }

    /// A landscape like that of [`new`](Self::new), as one version of a model is like another: each slot matters half
    /// again as much, or less.
    pub fn related(layout: &Layout, baseline_steps: u32) -> Self {
        let mut stream = Stream::new(99, "related", 0);
        let mut landscape = Self::new(layout, baseline_steps);
        landscape.sensitivity.iter_mut().for_each(|s| *s *= 2.25f64.powf(stream.unit() - 0.5));
        landscape
    }

    fn error(&self, schedule: &Schedule) -> f64 {
        let (slots, steps) = (schedule.slots(), f64::from(schedule.steps()));
        let stretch = f64::from(self.baseline_steps) / steps;
        let (mut age, mut accumulated) = (vec![0.0f64; slots], 0.0f64);
        let scale = self.sensitivity.iter().map(|s| s * s).sum::<f64>().sqrt() * f64::from(self.baseline_steps);
        for step in 0..schedule.steps() {
            let mut sum = 0.0;
            for (slot, (age, sensitivity)) in age.iter_mut().zip(&self.sensitivity).enumerate() {
                match schedule.decision(step, slot) {
                    Decision::Compute => *age = 0.0,
                    Decision::Reuse => *age += stretch,
                    Decision::Forecast => *age += 0.8 * stretch,
                }
                sum += (sensitivity * age.powf(1.5)).powi(2);
            }
            let place = f64::from(step) / steps;
            let weight = 0.5 + (place - 0.6) * (place - 0.6) * 4.0;
            accumulated = accumulated * (1.0 + 0.02 * stretch) + stretch * weight * sum.sqrt();
        }
        1.0 - (-accumulated / scale).exp() * (1.0 - 0.02 * (stretch - 1.0))
    }

    /// Latency is the share computed and a fixed tenth; quality is 1 without error.
    pub fn measure(&self, schedule: &Schedule) -> Measurement {
        let all = f64::from(self.baseline_steps) * schedule.slots() as f64;
        let share = schedule.computed() as f64 / all;
        let fixed = 0.1 * f64::from(schedule.steps()) / f64::from(self.baseline_steps);
        let quality = 1.0 - self.error(schedule);
        Measurement {
            metrics: vec![MetricValues { name: "quality".into(), values: vec![quality], baseline_mean: 1.0 }],
            latency_us: vec![1000.0 * (0.9 * share + fixed)],
            baseline_latency_us: vec![1000.0],
            macs: schedule.computed() as u64,
            baseline_macs: all as u64,
            peak_cache_bytes: 0,
            device_time: Duration::from_secs(1),
            disturbed: 0,
            thumbnails: vec![],
            profile: None,
        }
    }
}

/// A specification over (latency ratio, quality).
pub fn draft(strategy: Strategy, steps: &[u32], evaluations: u64, seed: u64) -> SpecDraft {
    let objective = |metric: &str, direction| Objective { metric: metric.into(), direction, bound: None };
    SpecDraft {
        model: ModelRef { name: "synthetic".into(), fingerprint: None },
        sampling: Sampling {
            steps: steps.to_vec(),
            guidance_scale: 1.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        },
        forecast: false,
        prompts: vec![Prompt { text: "an owl".into(), seed: 0 }],
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 0 },
        objectives: vec![objective("latency_ratio", Direction::Minimize), objective("quality", Direction::Maximize)],
        budget: Budget { evaluations: Some(evaluations), ..Budget::default() },
        algorithm: Algorithm { strategy, ..Algorithm::default() },
        seed,
        labels: Default::default(),
        placement: Default::default(),
        imported: vec![],
    }
}

/// The checked specification.
pub fn spec(draft: SpecDraft) -> Arc<SearchSpec> {
    match draft.validate() {
        Ok(spec) => Arc::new(spec),
        Err(error) => panic!("{error}"),
    }
}
