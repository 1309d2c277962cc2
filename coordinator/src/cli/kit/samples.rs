//! A search and evaluations for unit tests of the command line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{
    Algorithm, Budget, CandidateId, Decision, Direction, Layout, Measurement, MeasurementPlan, MetricValues, ModelRef,
    Objective, Prompt, Sampling, Schedule, SearchId, SpecDraft,
};

use crate::client::{Estimate, Evaluation, Progress, Search, SearchState};

/// A finished search with two prompts, for the evaluations of [`sample`].
pub(crate) fn search() -> Search {
    let objective = |metric: &str, direction| Objective { metric: metric.into(), direction, bound: None };
    Search {
        id: SearchId::new("s").unwrap(),
        spec: SpecDraft {
            model: ModelRef { name: "m".into(), fingerprint: None },
            sampling: Sampling {
                steps: vec![4],
                guidance_scale: 3.0,
                height: None,
                width: None,
                negative_prompt: String::new(),
                grids: vec![],
            },
            forecast: false,
            guidance_decisions: false,
            prompts: ["an owl", "a cat"].map(|text| Prompt { text: text.into(), seed: 0 }).into(),
            plan: MeasurementPlan { batch: 1, warmup: 0, repeats: 1, thumbnails: 0 },
            objectives: vec![
                objective("latency_ratio", Direction::Minimize),
                objective("clip_score", Direction::Maximize),
            ],
            budget: Budget { evaluations: Some(10), ..Budget::default() },
            algorithm: Algorithm::default(),
            seed: 0,
            labels: BTreeMap::new(),
            placement: Default::default(),
            imported: vec![],
        },
        state: SearchState::Completed,
        end_reason: Default::default(),
        create_time: None,
        start_time: None,
        end_time: None,
        model: None,
        progress: Progress::default(),
        insight: None,
        references: vec![],
        prompts: 2,
        imported: 0,
    }
}

/// An evaluation of a FORA schedule of 4 steps that computes every n-th, with a latency to match and these values of the
/// quality metric; the uncached mean is 1.
pub(crate) fn sample(candidate: u64, every: u32, values: &[f64]) -> Evaluation {
    let layout = Arc::new(Layout::pixart(1).unwrap());
    let on = |step: u32| if step.is_multiple_of(every) { Decision::Compute } else { Decision::Reuse };
    let schedule = Schedule::from_fn(layout, 4, |step, _| on(step)).unwrap();
    let share = 1.0 - schedule.cache_hit_rate();
    Evaluation {
        candidate: CandidateId(candidate),
        schedule,
        parents: vec![],
        operator: "seed".into(),
        seed_family: "fora".into(),
        imported: vec![],
        measurement: Measurement {
            metrics: vec![MetricValues { name: "clip_score".into(), values: values.to_vec(), baseline_mean: 1.0 }],
            latency_us: vec![1e4 * share],
            baseline_latency_us: vec![1e4],
            macs: 1,
            baseline_macs: 2,
            peak_cache_bytes: 0,
            device_time: Duration::from_secs(1),
            disturbed: 0,
            thumbnails: vec![],
            profile: None,
        },
        values: BTreeMap::new(),
        worker_id: "w".into(),
        worker_name: "w".into(),
        device: "d".into(),
        start_time: None,
        end_time: None,
        attempt: 1,
        excluded: false,
        estimate: Some(Estimate { value: share, deviation: 0.01, measurements: 2 }),
        estimated_latency_us: None,
    }
}
