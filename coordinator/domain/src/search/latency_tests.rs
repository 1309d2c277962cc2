//! Tests of latency estimates on schedules whose true latency is known.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{Decision, Layout};

use super::*;
use crate::rng::Stream;
use crate::search::random;

fn space() -> Space {
    Space::new(Arc::new(Layout::pixart(4).unwrap()), &[20], false)
}

/// Components cost 30, 10 and 60 % of 95 %, steps 5 % in all; `odd` is the misfit of the line, in logarithms.
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

/// A measured ratio without other information.
fn plain(ratio: f64) -> Timing<'static> {
    Timing { ratio, uncached: &[], macs: 0.0 }
}

/// Latencies of `n` random schedules, of which the first `repeated` were measured five times, and the true ratios.
fn measured(n: usize, repeated: usize, noise: f64, odd: f64) -> (Latencies, Vec<f64>) {
    let space = space();
    let mut stream = Stream::new(7, "latencies", 0);
    let mut latencies = Latencies::new(&space);
    let mut truths = Vec::new();
    for i in 0..n {
        let schedule = random::any_density(&space, &mut stream).to_schedule(&space).unwrap();
        let true_ratio = truth(&schedule, odd * normal(&mut stream).abs());
        for _ in 0..if i < repeated { 5 } else { 1 } {
            let measured = true_ratio * (noise * normal(&mut stream)).exp();
            latencies.tell(&space, CandidateId(i as u64), &schedule, plain(measured));
        }
        truths.push(true_ratio);
    }
    latencies.fit();
    (latencies, truths)
}

/// Root mean square of the estimates' relative errors, and of their stated deviations.
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
    // The stated deviation includes the misfit, which is not known better.
    assert!((0.5..4.0).contains(&(said / error)), "{said} {error}");
}

#[test]
fn on_a_quiet_machine_the_measurement_dominates() {
    // The line is off by about 10 %, measurements by 0.5 %.
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
        latencies.tell(&space, CandidateId(1000), &schedule, plain(factor * truth(&schedule, 0.0)));
    }
    latencies.fit();
    assert!(latencies.noise().unwrap() < 0.02, "{:?}", latencies.noise());
}

#[test]
fn estimates_exist_only_for_measured_schedules_and_are_usable_before_a_fit() {
    let space = space();
    let mut latencies = Latencies::new(&space);
    assert_eq!((latencies.estimate(CandidateId(0)), latencies.noise(), latencies.repeats()), (None, None, 0));
    let schedule = random::any_density(&space, &mut Stream::new(3, "x", 0)).to_schedule(&space).unwrap();
    latencies.tell(&space, CandidateId(0), &schedule, plain(1.0));
    let estimate = latencies.estimate(CandidateId(0)).unwrap();
    assert!(estimate.value <= 1.0 && estimate.deviation > 0.01 && estimate.measurements == 1, "{estimate:?}");
    latencies.fit();
    assert!(latencies.estimate(CandidateId(0)).unwrap().value.is_finite());
}

#[test]
fn the_ratio_of_the_uncached_run_is_one_and_its_measurements_show_the_noise() {
    let (mut latencies, space) = (Latencies::new(&space()), space());
    let schedule = Schedule::all_compute(space.layout().clone(), 20).unwrap();
    for ratio in [0.6, 1.47, 0.8, 1.2] {
        latencies.tell(&space, CandidateId(0), &schedule, plain(ratio));
    }
    latencies.fit();
    let estimate = latencies.estimate(CandidateId(0)).unwrap();
    assert_eq!((estimate.value, estimate.deviation, estimate.measurements), (1.0, 0.0, 4));
    assert!(latencies.noise().unwrap() > 0.1, "{:?}", latencies.noise());
}

#[test]
fn ratios_below_the_share_of_work_are_treated_as_noise() {
    let space = space();
    let mut latencies = Latencies::new(&space);
    let fora =
        Schedule::from_fn(
            space.layout().clone(),
            20,
            |step, _| {
                if step % 10 == 0 { Decision::Compute } else { Decision::Reuse }
            },
        );
    let fora = fora.unwrap();
    for candidate in 0..3 {
        latencies.tell(&space, CandidateId(candidate), &fora, Timing { macs: 0.12, ..plain(0.05) });
    }
    let schedule = random::any_density(&space, &mut Stream::new(5, "x", 0)).to_schedule(&space).unwrap();
    latencies.tell(&space, CandidateId(9), &schedule, Timing { macs: 0.6, ..plain(0.1) });
    latencies.fit();
    // One schedule computes 10 % of each kind of component, the other does 60 % of the multiply-accumulates.
    let value = |candidate| latencies.estimate(CandidateId(candidate)).unwrap().value;
    assert!((value(0) - 0.1 / PER_RUN).abs() < 1e-9, "{}", value(0));
    assert!(value(9) >= 0.4 - 1e-9, "{}", value(9));
}

/// A worker's timings without other information.
fn timed(latency_us: Vec<f64>, baseline_latency_us: Vec<f64>) -> Measurement {
    Measurement {
        metrics: vec![],
        latency_us,
        baseline_latency_us,
        macs: 0,
        baseline_macs: 1,
        peak_cache_bytes: 0,
        device_time: Duration::ZERO,
        disturbed: 0,
        thumbnails: vec![],
        profile: None,
    }
}

/// How batch times vary on a machine, relative to an undisturbed batch.
type Machine = fn(&mut Stream) -> f64;

/// Estimates of a simulated search, by number of measurements: how many are within one and within two deviations of the
/// truth, how many there are, and the sum of their deviations.
fn coverage(machine: Machine, evaluations: usize, seed: u64) -> BTreeMap<u32, [f64; 4]> {
    let space = space();
    let mut stream = Stream::new(seed, "coverage", 0);
    let mut latencies = Latencies::new(&space);
    let mut truths = Vec::new();
    for i in 0..evaluations {
        let repeats = i % 4 == 3;
        let key = CandidateId(if repeats { stream.below(truths.len()) } else { truths.len() } as u64);
        if !repeats {
            let mut schedule = random::any_density(&space, &mut stream).to_schedule(&space).unwrap();
            if i == 0 {
                schedule = Schedule::all_compute(space.layout().clone(), 20).unwrap();
            }
            let ratio = if i == 0 { 1.0 } else { truth(&schedule, 0.02 * normal(&mut stream)) };
            truths.push((schedule, ratio));
        }
        let (schedule, ratio) = &truths[key.0 as usize];
        // As on a worker: two batches of the candidate between three uncached ones.
        let mut batches = |count, time: f64| (0..count).map(|_| time * machine(&mut stream)).collect();
        let measured = timed(batches(2, *ratio), batches(3, 1.0));
        latencies.tell(&space, key, schedule, Timing::from(&measured));
    }
    latencies.fit();
    let mut told: BTreeMap<u32, [f64; 4]> = BTreeMap::new();
    for (i, (_, ratio)) in truths.iter().enumerate().skip(1) {
        let estimate = latencies.estimate(CandidateId(i as u64)).unwrap();
        let off = (estimate.value / ratio).ln().abs() / estimate.deviation;
        let sums = told.entry(estimate.measurements.min(3)).or_default();
        let one = [f64::from(off <= 1.0), f64::from(off <= 2.0), 1.0, estimate.deviation];
        sums.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
    }
    told
}

#[test]
fn intervals_contain_the_truth_as_often_as_stated() {
    let machines: [(&str, Machine); 4] = [
        ("steady, 0.5 %", |s| (0.005 * normal(s)).exp()),
        ("unsteady, 5 %", |s| (0.05 * normal(s)).exp()),
        ("unsteady, 20 %", |s| (0.2 * normal(s)).exp()),
        // One batch in four takes up to twice as long.
        ("bursts", |s| (0.01 * normal(s)).exp() * if s.chance(0.25) { 1.0 + s.unit() } else { 1.0 }),
    ];
    println!("machine         evaluations  measured  within one deviation  within two  mean deviation");
    for (name, machine) in machines {
        for evaluations in [12, 40, 200] {
            let mut told: BTreeMap<u32, [f64; 4]> = BTreeMap::new();
            for seed in 0..2400 / evaluations as u64 {
                for (count, sums) in coverage(machine, evaluations, seed) {
                    told.entry(count).or_default().iter_mut().zip(sums).for_each(|(sum, x)| *sum += x);
                }
            }
            for (count, [one, two, all, deviation]) in told {
                // With few estimates the share itself is poorly known.
                let enough = all >= 200.0;
                let (one, two, deviation) = (100.0 * one / all, 100.0 * two / all, 100.0 * deviation / all);
                let times = ["once", "twice", "more"][count as usize - 1];
                println!("{name:14}  {evaluations:11}  {times:8}  {one:18.1} %  {two:8.1} %  {deviation:12.2} %");
                let least = match name {
                    "bursts" => (45.0, 75.0),
                    _ => (57.0, 85.0),
                };
                let covers = one >= least.0 && two >= least.1;
                assert!(covers || !enough, "{name}, {evaluations} evaluations, {times}: {one} {two}");
            }
        }
    }
}
