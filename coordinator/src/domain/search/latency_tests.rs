//! Tests of latency estimates on schedules whose true latency is known.

use std::sync::Arc;

use evocache_proto::domain::{Decision, Layout};

use super::*;
use crate::domain::rng::Stream;
use crate::domain::search::random;

fn space() -> Space {
    Space::new(Arc::new(Layout::pixart(4).unwrap()), &[20], false)
}

/// Components cost 3, 1 and 6 parts of ten, a step half a part in all; what the line cannot know is `odd`.
fn truth(schedule: &Schedule, odd: f64) -> f64 {
    let mut cost = 0.05 * f64::from(schedule.steps()) / 20.0;
    for step in 0..schedule.steps() {
        for slot in 0..schedule.slots() {
            let own = [0.3, 0.1, 0.6][slot % 3];
            cost += if schedule.decision(step, slot) == Decision::Compute { 0.95 * own / (4.0 * 20.0) } else { 0.0 };
        }
    }
    cost * odd.exp()
}

fn normal(stream: &mut Stream) -> f64 {
    (0..12).map(|_| stream.unit()).sum::<f64>() - 6.0
}

/// Latencies of `n` random schedules, of which the first `repeated` were measured five times, and the truths.
fn measured(n: usize, repeated: usize, noise: f64, odd: f64) -> (Latencies, Vec<f64>) {
    let space = space();
    let mut stream = Stream::new(7, "latencies", 0);
    let mut latencies = Latencies::new(&space);
    let mut truths = Vec::new();
    for i in 0..n {
        let schedule = random::any_density(&space, &mut stream).to_schedule(&space).unwrap();
        let true_ratio = truth(&schedule, odd * normal(&mut stream));
        for _ in 0..if i < repeated { 5 } else { 1 } {
            let measured = true_ratio * (noise * normal(&mut stream)).exp();
            latencies.tell(&space, CandidateId(i as u64), &schedule, measured);
        }
        truths.push(true_ratio);
    }
    latencies.fit();
    (latencies, truths)
}

/// Root mean square of the relative error of the estimates, and of what they say of it themselves.
fn errors(latencies: &Latencies, truths: &[f64]) -> (f64, f64) {
    let estimates = || (0..truths.len()).filter_map(|i| latencies.estimate(CandidateId(i as u64)));
    let mean = |values: f64| (values / truths.len() as f64).sqrt();
    let error = estimates().zip(truths).map(|(e, t)| (e.value / t).ln().powi(2)).sum();
    (mean(error), mean(estimates().map(|e| e.deviation.powi(2)).sum()))
}

#[test]
fn on_a_noisy_machine_the_line_corrects_single_measurements() {
    let (latencies, truths) = measured(300, 20, 0.2, 0.0);
    let noise = latencies.noise().unwrap();
    assert!((0.15..0.25).contains(&noise), "{noise}");
    let (error, said) = errors(&latencies, &truths);
    assert!(error < 0.04, "{error} for a noise of 0.2");
    assert!((0.5..2.0).contains(&(said / error)), "{said} {error}");
}

#[test]
fn on_a_quiet_machine_a_measurement_counts_nearly_alone() {
    // The line is wrong by 10 % here and there; measurements by half a per cent.
    let (latencies, truths) = measured(300, 20, 0.005, 0.1);
    let (error, said) = errors(&latencies, &truths);
    assert!(error < 0.007, "{error}");
    assert!((0.5..2.0).contains(&(said / error)), "{said} {error}");
}

#[test]
fn one_disturbed_schedule_does_not_make_all_others_look_noisy() {
    let (mut latencies, _) = measured(100, 10, 0.01, 0.0);
    let space = space();
    let schedule = random::any_density(&space, &mut Stream::new(8, "x", 0)).to_schedule(&space).unwrap();
    for factor in [1.0, 9.0] {
        latencies.tell(&space, CandidateId(1000), &schedule, factor * truth(&schedule, 0.0));
    }
    latencies.fit();
    assert!(latencies.noise().unwrap() < 0.02, "{:?}", latencies.noise());
}

#[test]
fn before_any_fit_and_for_strangers_nothing_is_made_up() {
    let space = space();
    let mut latencies = Latencies::new(&space);
    assert_eq!((latencies.estimate(CandidateId(0)), latencies.noise(), latencies.repeats()), (None, None, 0));
    let schedule = Schedule::all_compute(space.layout().clone(), 20).unwrap();
    latencies.tell(&space, CandidateId(0), &schedule, 1.0);
    let estimate = latencies.estimate(CandidateId(0)).unwrap();
    assert!((estimate.value - 1.0).abs() < 0.01 && estimate.measurements == 1);
    latencies.fit();
    assert!(latencies.estimate(CandidateId(0)).unwrap().value.is_finite());
}
