//! A search so small that it is over in milliseconds, and what its workers declare and measure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evocache_domain::lease::RetryPolicy;
use evocache_domain::rng::Stream;
use evocache_proto::domain::{
    Algorithm, Budget, Declaration, Direction, Layout, Measurement, MeasurementPlan, MetricDeclaration, MetricValues,
    ModelRef, Objective, Prompt, Sampling, Schedule, SearchSpec, SpecDraft,
};

/// Prompts of a search.
pub(crate) const PROMPTS: usize = 2;

pub(crate) fn layout() -> Arc<Layout> {
    Arc::new(Layout::pixart(2).unwrap())
}

pub(crate) fn spec(evaluations: u64, seed: u64) -> SearchSpec {
    draft(evaluations, seed).validate().unwrap()
}

pub(crate) fn draft(evaluations: u64, seed: u64) -> SpecDraft {
    let objective = |metric: &str, direction| Objective { metric: metric.into(), direction, bound: None };
    SpecDraft {
        model: ModelRef { name: "toy".into(), fingerprint: None },
        sampling: Sampling {
            steps: vec![6, 4],
            guidance_scale: 3.0,
            height: None,
            width: None,
            negative_prompt: String::new(),
            grids: vec![],
        },
        forecast: false,
        prompts: (0..PROMPTS as u64).map(|seed| Prompt { text: format!("prompt {seed}"), seed }).collect(),
        plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 1 },
        objectives: vec![objective("latency_ratio", Direction::Minimize), objective("likeness", Direction::Maximize)],
        budget: Budget { evaluations: Some(evaluations), ..Budget::default() },
        // Half of the searches evaluate on one prompt before they evaluate on both.
        algorithm: Algorithm {
            population: 8,
            rungs: if seed.is_multiple_of(2) { vec![] } else { vec![1] },
            ..Algorithm::default()
        },
        seed,
        labels: BTreeMap::new(),
        placement: Default::default(),
        imported: vec![],
    }
}

pub(crate) fn declaration(name: &str) -> Declaration {
    Declaration {
        name: name.into(),
        device: "simulated".into(),
        software: "tests".into(),
        model: "toy".into(),
        fingerprint: "f1".into(),
        layout: Layout::clone(&layout()),
        forecast: false,
        profiles: false,
        grids: false,
        memory_bytes: 0,
        labels: BTreeMap::new(),
        metrics: vec![MetricDeclaration {
            name: "likeness".into(),
            direction: Direction::Maximize,
            unit: "1".into(),
            description: "1 without error".into(),
        }],
        cost: None,
    }
}

/// A measurement that no other equals: its first latency tells it from all others.
pub(crate) fn measure(schedule: &Schedule, prompts: u32, pictures: Vec<Vec<u8>>, chance: &mut Stream) -> Measurement {
    let computed = schedule.computed() as f64;
    let all = 6.0 * schedule.slots() as f64;
    let error = 1.0 - computed / all;
    let prompts = if prompts == 0 { PROMPTS } else { prompts as usize };
    Measurement {
        metrics: vec![MetricValues {
            name: "likeness".into(),
            values: (0..prompts).map(|_| (-error).exp() * (1.0 + 0.01 * chance.unit())).collect(),
            baseline_mean: 1.0,
        }],
        latency_us: vec![(computed + 6.0) * (1.0 + 0.05 * chance.unit())],
        baseline_latency_us: vec![all + 6.0],
        macs: computed as u64 + 1,
        baseline_macs: all as u64 + 1,
        peak_cache_bytes: 8,
        device_time: Duration::from_millis(10),
        disturbed: 0,
        thumbnails: pictures,
        profile: None,
    }
}

pub(crate) fn policy(ttl: Duration) -> RetryPolicy {
    RetryPolicy { max_attempts: 5, base: Duration::from_secs(1), cap: Duration::from_secs(8), ttl }
}
