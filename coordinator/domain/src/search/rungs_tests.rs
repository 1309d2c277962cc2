//! Tests of partial results and promotions.

use std::time::Duration;

use evocache_proto::domain::Strategy;

use super::*;
use evocache_testkit::landscape::{draft, spec};

const ALL: usize = 8;

fn measurement(ratio: f64, values: Vec<f64>) -> Measurement {
    Measurement {
        metrics: vec![MetricValues { name: "quality".into(), values, baseline_mean: 0.5 }],
        latency_us: vec![1000.0 * ratio],
        baseline_latency_us: vec![1000.0],
        macs: 1,
        baseline_macs: 1,
        peak_cache_bytes: 0,
        device_time: Duration::from_millis(1),
        disturbed: 0,
        thumbnails: vec![],
        profile: None,
    }
}

/// The uncached run has 0.8 on even prompts and 0.2 on odd ones.
fn uncached() -> Vec<f64> {
    (0..ALL).map(|i| if i % 2 == 0 { 0.8 } else { 0.2 }).collect()
}

struct Case {
    rungs: Rungs,
    objectives: Objectives,
    front: Archive,
}

impl Case {
    fn new(parts: &[u32]) -> Self {
        let mut rungs = Rungs::new(parts, ALL);
        rungs.set_baseline(&measurement(1.0, uncached()));
        Self {
            rungs,
            objectives: Objectives::new(&spec(draft(Strategy::SteadyState, &[4], 10, 1))),
            front: Archive::new(),
        }
    }

    /// Tells a result on the first prompts, each `loss` below the uncached run.
    fn tell(&mut self, id: u64, prompts: usize, ratio: f64, losses: &[f64]) -> Observed {
        let values = uncached().into_iter().zip(losses).take(prompts).map(|(u, loss)| u - loss).collect();
        let measurement = measurement(ratio, values);
        let observed = self.objectives.observe(&measurement, 0.0).unwrap();
        let prompts = PromptSet::from_number(prompts as u32);
        self.rungs.tell(CandidateId(id), prompts, &self.objectives, &observed, &measurement).unwrap()
    }

    fn next(&self) -> Option<(u64, u32)> {
        self.rungs
            .next(&self.objectives, &self.front, None)
            .map(|(candidate, prompts)| (candidate.0, prompts.to_number()))
    }
}

#[test]
fn without_rungs_everything_is_on_all_prompts() {
    let rungs = Rungs::new(&[], ALL);
    assert_eq!(rungs.first(), PromptSet::All);
    assert!(!rungs.is_partial(PromptSet::All) && !rungs.is_partial(PromptSet::from_number(ALL as u32)));
}

#[test]
fn a_partial_result_is_compared_prompt_by_prompt() {
    let mut case = Case::new(&[1, 3]);
    // On the first prompt alone the uncached run scores better than on all.
    let likely = case.tell(1, 1, 0.5, &[0.1; ALL]);
    assert!((case.objectives.judge(&likely).values[1] - -(0.5 - 0.1)).abs() < 1e-12);
    assert_eq!(case.next(), Some((1, 3)));
}

#[test]
fn a_candidate_that_cannot_reach_the_front_is_not_promoted() {
    let mut case = Case::new(&[4]);
    let good = case.objectives.observe(&measurement(0.5, vec![0.45; ALL]), 0.0).unwrap();
    case.front.insert(CandidateId(100), case.objectives.judge(&good));
    // A loss of 0.2 on each prompt is certain. An uneven loss of 0.06 on average may be chance.
    case.tell(1, 4, 0.6, &[0.2; ALL]);
    assert_eq!(case.next(), None);
    case.tell(2, 4, 0.5, &[0.0, 0.12, 0.0, 0.12]);
    assert_eq!(case.next(), Some((2, 0)));
    // Once promoted or pruned, it is not promoted again.
    let mut promoted = case.rungs.clone();
    promoted.promote(CandidateId(2), PromptSet::All);
    assert_eq!(promoted.next(&case.objectives, &case.front, None), None);
    case.rungs.prune(|_| false);
    assert_eq!(case.next(), None);
}

#[test]
fn a_third_of_a_rung_is_promoted_and_the_highest_rung_goes_first() {
    let mut case = Case::new(&[2, 4]);
    for id in 1..=6 {
        // Each is on the rung's front.
        case.tell(id, 2, 0.1 * id as f64, &[0.3 - 0.05 * id as f64; ALL]);
    }
    let mut promoted = Vec::new();
    while let Some((candidate, prompts)) = case.next() {
        promoted.push((candidate, prompts));
        case.rungs.promote(CandidateId(candidate), PromptSet::from_number(prompts));
    }
    assert_eq!(promoted, [(1, 4), (2, 4)]);
    case.tell(7, 4, 0.1, &[0.2; ALL]);
    case.tell(8, 2, 0.05, &[0.2; ALL]);
    case.tell(9, 2, 0.05, &[0.2; ALL]);
    assert_eq!(case.next(), Some((7, 0)));
}
