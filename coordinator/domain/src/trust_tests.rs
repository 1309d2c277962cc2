//! Tests of comparisons between workers, and simulations of whole searches with honest and lying workers.

use std::time::Duration;

use super::*;
use crate::rng::Stream;

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

/// Scores of this mean with 1 % noise, and a latency ratio.
fn measured(score: f64, ratio: f64, shift: usize) -> Measurement {
    let noise = |i: usize| 1.0 + 0.01 * (((i * 7 + shift * 3) % 11) as f64 / 5.0 - 1.0);
    Measurement {
        metrics: vec![MetricValues {
            name: "score".into(),
            values: (0..20).map(|i| score * noise(i)).collect(),
            baseline_mean: 1.0,
        }],
        latency_us: (0..5).map(|i| 1e5 * ratio * noise(i)).collect(),
        baseline_latency_us: (0..5).map(|i| 1e5 * noise(i + 3)).collect(),
        macs: 1,
        baseline_macs: 1,
        peak_cache_bytes: 0,
        device_time: Duration::from_secs(1),
        thumbnails: vec![],
        profile: None,
        disturbed: 0,
    }
}

#[test]
fn noise_is_tolerated_and_a_wrong_result_is_found() {
    let difference = |a: &Measurement, b: &Measurement| super::difference(a, b, &Noise::default());
    let honest = measured(0.9, 0.5, 0);
    assert_eq!(difference(&honest, &measured(0.9, 0.52, 1)), None);
    assert_eq!(difference(&honest, &measured(0.905, 0.6, 2)), None);
    let told = difference(&honest, &measured(0.96, 0.5, 1)).unwrap();
    assert!(told.starts_with("score 0.") && told.contains(", not 0.9"), "{told}");
    assert!(difference(&honest, &measured(0.9, 0.2, 1)).unwrap().starts_with("latency ratio"));
    // Scores around zero are compared relative to their magnitude; different numbers of prompts are not compared.
    let around = |shift: f64| {
        let mut measured = measured(1.0, 0.5, 0);
        measured.metrics[0].values.iter_mut().enumerate().for_each(|(i, v)| *v = *v * (-1f64).powi(i as i32) + shift);
        measured
    };
    assert_eq!(difference(&around(0.0), &around(0.01)), None);
    assert!(difference(&around(0.0), &around(0.1)).is_some());
    let mut fewer = measured(0.5, 0.5, 0);
    fewer.metrics[0].values.pop();
    assert_eq!(difference(&honest, &fewer), None);
    // Latencies that vary widely may differ widely.
    let wild = |ratio: f64| {
        let mut measured = measured(0.9, ratio, 0);
        measured.latency_us = vec![1e5 * ratio, 2e5 * ratio, 0.6e5 * ratio];
        measured
    };
    assert_eq!(difference(&wild(0.5), &wild(0.2)), None);
}

#[test]
fn a_worker_that_differs_from_most_is_a_suspect_and_of_two_neither_is() {
    let (honest, lie) = (measured(0.9, 0.5, 0), measured(0.99, 0.5, 0));
    let mut trust = Trust::default();
    trust.tell(&worker("a"), &honest, std::iter::empty());
    trust.tell(&worker("liar"), &lie, [(&worker("a"), &honest)].into_iter());
    assert_eq!(trust.suspect(), None, "two workers that differ");
    trust.tell(&worker("b"), &honest, [(&worker("liar"), &lie)].into_iter());
    let (suspect, why) = trust.suspect().unwrap();
    assert_eq!(suspect, worker("liar"));
    assert!(why.contains("2 workers disagree with its results, 0 agree: score"), "{why}");
}

#[test]
fn two_liars_do_not_outvote_three_that_agree() {
    let (honest, lie) = (measured(0.9, 0.5, 0), measured(0.99, 0.5, 0));
    let all = [("x", &lie), ("y", &lie), ("a", &honest), ("b", &honest), ("c", &honest)];
    let all = all.map(|(name, measured)| (worker(name), measured));
    let mut found = vec![];
    loop {
        // As in the engine: all results are told again without those of the suspects.
        let left: Vec<_> = all.iter().filter(|(name, _)| !found.contains(name)).collect();
        let mut trust = Trust::default();
        for (i, (name, measured)) in left.iter().enumerate() {
            trust.tell(name, measured, left[..i].iter().map(|(other, theirs)| (other, *theirs)));
        }
        let Some((suspect, _)) = trust.suspect() else { break };
        found.push(suspect);
    }
    assert_eq!(found, [worker("x"), worker("y")]);
}

#[test]
fn a_differing_uncached_run_is_found_without_repeats() {
    let honest = measured(0.9, 0.5, 0);
    let mut other = honest.clone();
    other.metrics[0].baseline_mean = 0.8;
    let mut trust = Trust::default();
    trust.tell(&worker("a"), &honest, std::iter::empty());
    trust.tell(&worker("b"), &other, std::iter::empty());
    assert_eq!(trust.suspect(), None);
    for i in 0..20 {
        trust.tell(&worker(&format!("c{i}")), &honest, std::iter::empty());
        assert_eq!(trust.suspect().map(|s| s.0), Some(worker("b")));
    }
    // Once its uncached run agrees, the worker is no longer a suspect.
    trust.tell(&worker("b"), &honest, std::iter::empty());
    assert_eq!(trust.suspect(), None);
}

/// A search in which two or three of five workers measure each schedule.
struct Simulation {
    prompts: usize,
    /// Relative deviation of one prompt's score on one worker.
    noise: f64,
    /// Whether a worker's deviation on a prompt is the same each time.
    habit: bool,
    /// The factor of the first worker's scores; 1.0 if it is honest.
    lie: f64,
}

impl Simulation {
    const WORKERS: usize = 5;
    const SCHEDULES: u64 = 30;

    /// The workers that are quarantined, as in the engine: all results are told again without those of the suspects.
    fn run(&self, seed: u64) -> BTreeSet<usize> {
        let names: Vec<WorkerId> = (0..Self::WORKERS).map(|i| worker(&format!("w{i}"))).collect();
        let mut found = BTreeSet::new();
        'search: loop {
            let mut trust = Trust::default();
            for schedule in 0..Self::SCHEDULES {
                let mut draw = Stream::new(seed, "who", schedule);
                let mut told: Vec<(usize, Measurement)> = vec![];
                for _ in 0..2 + draw.below(2) {
                    let who = draw.below(Self::WORKERS);
                    if found.contains(&who) || told.iter().any(|(other, _)| *other == who) {
                        continue;
                    }
                    let measured = self.measure(seed, who, schedule);
                    let others = told.iter().map(|(other, theirs)| (&names[*other], theirs));
                    trust.tell(&names[who], &measured, others);
                    told.push((who, measured));
                    if let Some((suspect, _)) = trust.suspect() {
                        found.insert(names.iter().position(|name| *name == suspect).unwrap());
                        continue 'search;
                    }
                }
            }
            return found;
        }
    }

    fn measure(&self, seed: u64, who: usize, schedule: u64) -> Measurement {
        let scores = |schedule: u64, purpose: &str| -> Vec<f64> {
            let key = (who as u64) << 32 | if self.habit { 0 } else { schedule };
            let mut noise = Stream::new(seed, purpose, key);
            (0..self.prompts).map(|i| (1.0 + 0.2 * (i % 3) as f64) * (1.0 + self.noise * normal(&mut noise))).collect()
        };
        let lie = if who == 0 { self.lie } else { 1.0 };
        let mut measured = measured(1.0, 0.5, schedule as usize);
        let uncached = scores(0, "uncached");
        measured.metrics[0].baseline_mean = uncached.iter().sum::<f64>() / uncached.len() as f64;
        measured.metrics[0].values = scores(schedule, "scores").into_iter().map(|v| 0.9 * lie * v).collect();
        measured
    }
}

fn normal(stream: &mut Stream) -> f64 {
    (0..12).map(|_| stream.unit()).sum::<f64>() - 6.0
}

#[test]
fn liars_are_quarantined_and_honest_workers_are_not() {
    const SEARCHES: u64 = 120;
    println!("prompts  noise  same deviation  honest searches with a quarantine  liars found: x1.1  x1.3  x2");
    for prompts in [1, 2, 4, 16] {
        // With one prompt and 10 % noise or more, a score carries no information.
        for noise in [0.0, 0.01, 0.06, 0.12].into_iter().filter(|&noise| noise < 0.1 || prompts >= 4) {
            for habit in [false, true] {
                let simulation = |lie: f64| Simulation { prompts, noise, habit, lie };
                let honest = (0..SEARCHES).filter(|&seed| !simulation(1.0).run(seed).is_empty()).count();
                let liars = [1.1, 1.3, 2.0].map(|lie| {
                    let found: Vec<_> = (0..SEARCHES / 6).map(|seed| simulation(lie).run(seed)).collect();
                    let others = found.iter().filter(|found| found.iter().any(|&who| who > 0)).count();
                    assert!(others <= 1, "honest workers quarantined in {others} searches with a liar of {lie}");
                    found.iter().filter(|found| found.contains(&0)).count()
                });
                println!(
                    "{prompts:7}  {noise:5}  {habit:14}  {honest:27} of {SEARCHES}  {liars:?} of {}",
                    SEARCHES / 6
                );
                assert!(
                    40 * honest <= SEARCHES as usize,
                    "{honest} of {SEARCHES}: {prompts} prompts, noise of {noise}"
                );
                let all = SEARCHES as usize / 6;
                assert!(
                    liars[2] + usize::from(noise > 0.1 || prompts == 1) >= all,
                    "a score twice as high is not found with {prompts} prompts, noise of {noise}"
                );
                if prompts >= 2 && noise <= 0.01 || prompts == 16 && noise <= 0.06 {
                    assert_eq!(
                        liars[1], all,
                        "a score a third too high is not found with {prompts} prompts, noise of {noise}"
                    );
                }
                if prompts >= 4 && noise <= 0.01 {
                    assert_eq!(
                        liars[0], all,
                        "a score a tenth too high is not found with {prompts} prompts, noise of {noise}"
                    );
                }
            }
        }
    }
}
