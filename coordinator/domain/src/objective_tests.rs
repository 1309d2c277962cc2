//! Tests of values, violations and losses, objective by objective.

use std::time::Duration;

use evocache_proto::domain::{MetricValues, Objective};

use super::*;
use evocache_testkit::landscape::{draft, spec};

fn measurement(quality: f64, baseline: f64) -> Measurement {
    Measurement {
        metrics: vec![MetricValues { name: "quality".into(), values: vec![quality], baseline_mean: baseline }],
        latency_us: vec![300.0],
        baseline_latency_us: vec![1000.0],
        macs: 25,
        baseline_macs: 100,
        peak_cache_bytes: 1 << 20,
        device_time: Duration::from_millis(1),
        disturbed: 0,
        thumbnails: vec![],
        profile: None,
    }
}

/// The score under (`latency_ratio`, `quality`) with these directions and bounds.
fn score(direction: Direction, bound: Option<f64>, m: &Measurement) -> Score {
    let mut draft = draft(evocache_proto::domain::Strategy::SteadyState, &[4], 10, 1);
    draft.objectives[1] = Objective { metric: "quality".into(), direction, bound };
    Objectives::new(&spec(draft)).score(m, 0.75).unwrap()
}

fn quality_loss(direction: Direction, bound: Option<f64>, quality: f64, baseline: f64) -> f64 {
    score(direction, bound, &measurement(quality, baseline)).losses[1]
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-12, "{a} is not {b}");
}

#[test]
fn the_loss_of_a_cost_is_its_share_of_the_uncached_run_or_of_its_bound() {
    for (metric, bound, value, loss) in [
        ("latency_us", None, 300.0, 0.3),
        ("latency_us", Some(600.0), 300.0, 0.5),
        ("latency_ratio", None, 0.3, 0.3),
        ("latency_ratio", Some(0.2), 0.3, 1.5),
        ("macs", None, 25.0, 0.25),
        ("macs_ratio", None, 0.25, 0.25),
        ("cache_hit_rate", None, -0.75, 0.25),
        ("cache_hit_rate", Some(0.5), -0.75, 0.5),
        ("cache_bytes", Some((1u64 << 21) as f64), (1u64 << 20) as f64, 0.5),
    ] {
        let mut draft = draft(evocache_proto::domain::Strategy::SteadyState, &[4], 10, 1);
        draft.objectives[0] = Objective { metric: metric.into(), direction: builtin_direction(metric).unwrap(), bound };
        let score = Objectives::new(&spec(draft)).score(&measurement(0.9, 1.0), 0.75).unwrap();
        near(score.values[0], value);
        near(score.losses[0], loss);
    }
}

#[test]
fn cache_bytes_without_a_bound_are_logarithmic() {
    let mut draft = draft(evocache_proto::domain::Strategy::SteadyState, &[4], 10, 1);
    draft.objectives[0] = Objective { metric: "cache_bytes".into(), direction: Direction::Minimize, bound: None };
    let objectives = Objectives::new(&spec(draft));
    let loss = |bytes: u64| {
        let m = Measurement { peak_cache_bytes: bytes, ..measurement(0.9, 1.0) };
        objectives.score(&m, 0.5).unwrap().losses[0]
    };
    near(loss(0), 0.0);
    near(loss(1 << 40), 1.0);
    assert!((loss(1 << 20) - 0.5).abs() < 1e-6);
}

#[test]
fn the_loss_of_a_maximized_metric_is_0_at_the_baseline_and_1_at_zero() {
    near(quality_loss(Direction::Maximize, None, 0.9, 1.2), 0.25);
    near(quality_loss(Direction::Maximize, None, 1.2, 1.2), 0.0);
    near(quality_loss(Direction::Maximize, None, 1.5, 1.2), -0.25);
    near(quality_loss(Direction::Maximize, Some(0.8), 1.0, 1.2), 0.5);
    // PSNR to the uncached picture: the baseline is the cap.
    near(quality_loss(Direction::Maximize, None, 30.0, 100.0), 0.7);
    // A reward whose baseline is not positive.
    near(quality_loss(Direction::Maximize, None, -1.0, -0.5), 0.5);
    near(quality_loss(Direction::Maximize, None, -8.0, -4.0), 1.0);
}

#[test]
fn the_loss_of_a_minimized_metric_is_0_at_the_baseline_and_1_at_twice_the_baseline() {
    near(quality_loss(Direction::Minimize, None, 25.0, 20.0), 0.25);
    near(quality_loss(Direction::Minimize, Some(30.0), 25.0, 20.0), 0.5);
    // LPIPS to the uncached picture: the baseline is 0.
    near(quality_loss(Direction::Minimize, None, 0.3, 0.0), 0.3);
    near(quality_loss(Direction::Minimize, Some(0.6), 0.3, 0.0), 0.5);
}

#[test]
fn a_bound_that_the_uncached_run_breaks_is_the_reference() {
    near(quality_loss(Direction::Maximize, Some(2.0), 2.0, 1.0), 1.0);
    near(quality_loss(Direction::Maximize, Some(2.0), 3.0, 1.0), 0.5);
    near(quality_loss(Direction::Minimize, Some(0.0), 0.5, 0.0), 1.5);
}

#[test]
fn violations_are_relative_to_their_bounds_and_zero_within_them() {
    let violation = |direction, bound, quality| score(direction, Some(bound), &measurement(quality, 1.0)).violation;
    near(violation(Direction::Maximize, 0.8, 0.6), 0.25);
    near(violation(Direction::Maximize, 0.8, 0.8), 0.0);
    near(violation(Direction::Minimize, 0.8, 1.0), 0.25);
    near(violation(Direction::Minimize, 0.0, 0.25), 0.25);
    assert!(score(Direction::Maximize, None, &measurement(-5.0, 1.0)).is_feasible());
}

#[test]
fn missing_and_nan_objectives_have_no_score() {
    let objectives = Objectives::new(&spec(draft(evocache_proto::domain::Strategy::SteadyState, &[4], 10, 1)));
    let mut m = measurement(f64::NAN, 1.0);
    assert!(matches!(objectives.score(&m, 0.5), Err(ScoreError::NotFinite { .. })));
    assert!(matches!(objectives.check(&m, 0.5), Err(ScoreError::NotFinite { .. })));
    m.metrics.clear();
    assert_eq!(objectives.score(&m, 0.5), Err(ScoreError::Missing("quality".into())));
    assert_eq!(objectives.check(&m, 0.5), Err(ScoreError::Missing("quality".into())));
    assert_eq!(objectives.check(&measurement(0.9, 1.0), 0.5), Ok(()));
    assert_eq!((objectives.len(), objectives.is_empty()), (2, false));
}
