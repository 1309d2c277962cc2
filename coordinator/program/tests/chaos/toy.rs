//! The toy search of these tests: small, with results that no other equals.

use std::sync::Arc;
use std::time::Duration;

use evocache_domain::lease::RetryPolicy;
use evocache_domain::rng::Stream;
use evocache_proto::domain::{Declaration, Layout, Measurement, PromptSet, Schedule, SearchSpec, SpecDraft};
use evocache_testkit::toy;

/// Prompts of a search.
pub(crate) const PROMPTS: usize = 2;
const STEPS: [u32; 2] = [6, 4];

pub(crate) fn layout() -> Arc<Layout> {
    Arc::new(Layout::pixart(2).unwrap())
}

pub(crate) fn spec(evaluations: u64, seed: u64) -> SearchSpec {
    draft(evaluations, seed).validate().unwrap()
}

pub(crate) fn draft(evaluations: u64, seed: u64) -> SpecDraft {
    let mut draft = toy::draft(&STEPS, PROMPTS, evaluations, seed);
    draft.algorithm.population = 8;
    // Half of the searches evaluate on one prompt before they evaluate on both.
    draft.algorithm.rungs = if seed.is_multiple_of(2) { vec![] } else { vec![1] };
    draft
}

pub(crate) fn declaration(name: &str) -> Declaration {
    toy::declaration(name, Layout::clone(&layout()))
}

/// A measurement that no other equals: its first latency tells it from all others.
pub(crate) fn measure(schedule: &Schedule, prompts: u32, pictures: Vec<Vec<u8>>, chance: &mut Stream) -> Measurement {
    let prompts = PromptSet::from_number(prompts).count(PROMPTS);
    let mut measurement = toy::measure(schedule, STEPS[0], prompts);
    let mut noise = |value: &mut f64, most: f64| *value *= 1.0 + most * chance.unit();
    measurement.metrics[0].values.iter_mut().for_each(|value| noise(value, 0.01));
    measurement.latency_us.iter_mut().for_each(|latency| noise(latency, 0.05));
    measurement.thumbnails = pictures;
    measurement
}

pub(crate) fn policy(ttl: Duration) -> RetryPolicy {
    RetryPolicy { max_attempts: 5, base: Duration::from_secs(1), cap: Duration::from_secs(8), ttl }
}
