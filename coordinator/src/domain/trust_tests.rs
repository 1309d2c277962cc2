use super::*;
use std::time::Duration;

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

/// Scores of this mean with noise of a hundredth, and a latency ratio.
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
fn noise_is_no_difference_and_a_lie_is() {
    let honest = measured(0.9, 0.5, 0);
    assert_eq!(difference(&honest, &measured(0.9, 0.52, 1)), None);
    assert_eq!(difference(&honest, &measured(0.905, 0.6, 2)), None);
    let told = difference(&honest, &measured(0.96, 0.5, 1)).unwrap();
    assert!(told.starts_with("score 0.") && told.contains(", not 0.9"), "{told}");
    assert!(difference(&honest, &measured(0.9, 0.2, 1)).unwrap().starts_with("latency ratio"));
    // Scores around zero are judged by their size, and another number of prompts not at all.
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
    // Latencies that vary much may differ much.
    let wild = |ratio: f64| {
        let mut measured = measured(0.9, ratio, 0);
        measured.latency_us = vec![1e5 * ratio, 2e5 * ratio, 0.6e5 * ratio];
        measured
    };
    assert_eq!(difference(&wild(0.5), &wild(0.2)), None);
}

#[test]
fn who_differs_from_most_is_suspect_and_of_two_neither() {
    let (honest, lie) = (measured(0.9, 0.5, 0), measured(0.99, 0.5, 0));
    let mut trust = Trust::default();
    trust.tell(&worker("a"), &honest, std::iter::empty());
    trust.tell(&worker("liar"), &lie, [(&worker("a"), &honest)].into_iter());
    assert_eq!(trust.suspect(), None, "one word against another");
    trust.tell(&worker("b"), &honest, [(&worker("liar"), &lie)].into_iter());
    let (suspect, why) = trust.suspect().unwrap();
    assert_eq!(suspect, worker("liar"));
    assert!(why.contains("2 workers measure something else than it does, 0 the same: score"), "{why}");
}

#[test]
fn two_liars_do_not_outvote_three_that_agree() {
    let (honest, lie) = (measured(0.9, 0.5, 0), measured(0.99, 0.5, 0));
    let all = [("x", &lie), ("y", &lie), ("a", &honest), ("b", &honest), ("c", &honest)];
    let all = all.map(|(name, measured)| (worker(name), measured));
    let mut found = vec![];
    loop {
        // As the engine does: everything is told anew without whoever is not believed.
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
fn an_uncached_run_unlike_all_others_is_found_without_a_repetition() {
    let honest = measured(0.9, 0.5, 0);
    let mut other = honest.clone();
    other.metrics[0].baseline_mean = 0.9;
    let mut trust = Trust::default();
    trust.tell(&worker("a"), &honest, std::iter::empty());
    trust.tell(&worker("b"), &other, std::iter::empty());
    assert_eq!(trust.suspect(), None);
    for i in 0..20 {
        trust.tell(&worker(&format!("c{i}")), &honest, std::iter::empty());
        assert_eq!(trust.suspect().map(|s| s.0), Some(worker("b")));
    }
    // A worker whose uncached run is as it should be from now on is one that others agree with.
    trust.tell(&worker("b"), &honest, std::iter::empty());
    assert_eq!(trust.suspect(), None);
}
