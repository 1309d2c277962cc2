//! One toy search: its specification, what a worker declares, and a measurement that follows from the schedule, so that
//! whole searches run in milliseconds and give the same result every time.

use std::time::Duration;

use evocache_proto::domain::{
    Algorithm, Budget, Decision, Declaration, Direction, Layout, Measurement, MeasurementPlan, MetricDeclaration,
    MetricValues, ModelRef, Objective, Prompt, Sampling, Schedule, SpecDraft,
};

/// The model's name.
pub const MODEL: &str = "toy";
/// The declared metric.
pub const METRIC: &str = "likeness";

/// A draft specification with the objectives latency ratio and likeness.
pub fn draft(steps: &[u32], prompts: usize, evaluations: u64, seed: u64) -> SpecDraft {
    let objective = |metric: &str, direction| Objective { metric: metric.into(), direction, bound: None };
    SpecDraft {
        model: ModelRef { name: MODEL.into(), fingerprint: None },
        sampling: Sampling {
            steps: steps.to_vec(),
            guidance_scale: 3.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        },
        forecast: false,
        guidance_decisions: false,
        prompts: (0..prompts as u64).map(|seed| Prompt { text: format!("prompt {seed}"), seed }).collect(),
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 1 },
        objectives: vec![objective("latency_ratio", Direction::Minimize), objective(METRIC, Direction::Maximize)],
        budget: Budget { evaluations: Some(evaluations), ..Budget::default() },
        algorithm: Algorithm::default(),
        seed,
        labels: Default::default(),
        placement: Default::default(),
        imported: vec![],
    }
}

/// What a worker with the toy model declares.
pub fn declaration(name: &str, layout: Layout) -> Declaration {
    Declaration {
        name: name.into(),
        device: "simulated".into(),
        software: "tests".into(),
        model: MODEL.into(),
        fingerprint: "f1".into(),
        layout,
        forecast: false,
        guidance_decisions: false,
        profiles: false,
        grids: false,
        memory_bytes: 0,
        labels: Default::default(),
        metrics: vec![MetricDeclaration {
            name: METRIC.into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "1 without error".into(),
        }],
        cost: None,
    }
}

/// A measurement on the first `prompts` prompts. The error grows with the age of what is reused, more so in early
/// blocks; latency is what is computed, in microseconds.
pub fn measure(schedule: &Schedule, baseline_steps: u32, prompts: usize) -> Measurement {
    let slots = schedule.slots();
    let (mut ages, mut error, mut computed) = (vec![0.0; slots], 0.0, 0u64);
    for step in 0..schedule.steps() {
        for (slot, age) in ages.iter_mut().enumerate() {
            match schedule.decision(step, slot) {
                Decision::Compute => (*age, computed) = (0.0, computed + 1),
                Decision::Reuse | Decision::Forecast => *age += 1.0,
            }
            error += *age * (1.0 + (slots - slot) as f64 / slots as f64) / (schedule.steps() as usize * slots) as f64;
        }
    }
    error += 0.02 * f64::from(baseline_steps.saturating_sub(schedule.steps()));
    let fixed = |steps: u32| u64::from(steps) * 4;
    let (latency, baseline) =
        (computed + fixed(schedule.steps()), u64::from(baseline_steps) * slots as u64 + fixed(baseline_steps));
    // Prompts differ, and their mean is 1 over each three of them.
    let scores = [0.98, 1.0, 1.02].into_iter().cycle().take(prompts);
    Measurement {
        metrics: vec![MetricValues {
            name: METRIC.into(),
            values: scores.map(|score| score * (-0.3 * error).exp()).collect(),
            baseline_mean: 1.0,
        }],
        latency_us: vec![latency as f64],
        baseline_latency_us: vec![baseline as f64],
        macs: latency,
        baseline_macs: baseline,
        peak_cache_bytes: (slots as u64 * u64::from(schedule.steps())).saturating_sub(computed),
        device_time: Duration::from_millis(10),
        disturbed: 0,
        thumbnails: vec![vec![schedule.steps() as u8; 5]],
        profile: None,
    }
}
