//! Synthetic landscapes for tests: schedules with a known cost and error, so that a search runs without a diffusion
//! model.
//!
//! Reusing an output of age `a` in slot `s` has the error `sensitivity(s) · a^1.5`. The slots of a step combine as a
//! norm, a step's weight depends on its relative time, and errors compound over the following steps. Fewer steps add an
//! error too, and so does a step that runs the conditional pass alone, the more the earlier it is. Landscapes show the sizes of effects and do not predict those of a real model.

use std::sync::Arc;
use std::time::Duration;

use evocache_domain::rng::Stream;
use evocache_proto::domain::{
    Decision, GuidanceDecision, Layout, Measurement, MetricValues, Pass, Schedule, SearchSpec, SpecDraft, Strategy,
};

use crate::toy;

/// A synthetic landscape: the sensitivity of each slot.
pub struct Landscape {
    sensitivity: Vec<f64>,
    baseline_steps: u32,
}

impl Landscape {
    /// The landscape of this layout; deterministic.
    pub fn new(layout: &Layout, baseline_steps: u32) -> Self {
        let mut stream = Stream::new(99, "landscape", 0);
        // Few slots are sensitive and most are not, as in a log-normal distribution.
        let sensitivity = (0..layout.slots()).map(|_| 60f64.powf(stream.unit() + stream.unit() - 1.0)).collect();
        Self { sensitivity, baseline_steps }
    }

    /// A landscape similar to that of [`new`](Self::new), as between versions of a model: each sensitivity is
    /// multiplied by a random factor between 1/1.5 and 1.5.
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
            // One pass alone: harmless late in a run, and less harmful with the difference kept.
            let unguided = match schedule.guidance(step) {
                GuidanceDecision::Both => 0.0,
                GuidanceDecision::Conditional => 0.4,
                GuidanceDecision::Kept => 0.2,
            };
            sum += self.sensitivity.iter().map(|s| s * s).sum::<f64>()
                * (unguided * (1.0 - place).powi(3) * stretch).powi(2);
            let weight = 0.5 + (place - 0.6) * (place - 0.6) * 4.0;
            accumulated = accumulated * (1.0 + 0.02 * stretch) + stretch * weight * sum.sqrt();
        }
        1.0 - (-accumulated / scale).exp() * (1.0 - 0.02 * (stretch - 1.0))
    }

    /// A measurement. The latency is 90 % proportional to the share computed and 10 % to the step count; quality is 1
    /// less the error.
    pub fn measure(&self, schedule: &Schedule) -> Measurement {
        let all = f64::from(self.baseline_steps) * schedule.slots() as f64;
        let weight = |step: u32| if schedule.runs(step, Pass::Unconditional) { 1.0 } else { 0.5 };
        let slots = schedule.slots();
        let cells = schedule.decisions().enumerate().filter(|(_, decision)| *decision == Decision::Compute);
        let share = cells.map(|(i, _)| weight((i / slots) as u32)).sum::<f64>() / all;
        let fixed = 0.05 * f64::from(schedule.passes()) / f64::from(self.baseline_steps);
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

/// A draft specification with the objectives latency ratio and quality.
pub fn draft(strategy: Strategy, steps: &[u32], evaluations: u64, seed: u64) -> SpecDraft {
    let mut draft = toy::draft(steps, 1, evaluations, seed);
    draft.plan.thumbnails = 0;
    draft.objectives[1].metric = "quality".into();
    draft.algorithm.strategy = strategy;
    draft
}

/// The validated specification; panics if it is invalid.
pub fn spec(draft: SpecDraft) -> Arc<SearchSpec> {
    match draft.validate() {
        Ok(spec) => Arc::new(spec),
        Err(error) => panic!("{error}"),
    }
}
