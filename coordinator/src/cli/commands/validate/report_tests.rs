//! Verdicts and comparisons, on evaluations with known figures.

use super::super::{json, text};
use super::*;
use crate::cli::kit::samples::{sample, search};
use crate::client::Estimate;

/// A member of a front or a seed, by its speed-up and its quality on two prompts.
fn made(candidate: u64, every: u32, operator: &str, family: &str, speedup: f64, values: [f64; 2]) -> Evaluation {
    Evaluation {
        operator: operator.into(),
        seed_family: family.into(),
        estimate: Some(Estimate { value: 1.0 / speedup, deviation: 0.01, measurements: 2 }),
        ..sample(candidate, every, &values)
    }
}

/// Another schedule than any of [`made`]: as `every`, but with fewer steps.
fn shorter(mut e: Evaluation, steps: u32) -> Evaluation {
    use evocache_proto::domain::{Decision, Schedule};
    let layout = e.schedule.layout().clone();
    let cached = e.schedule.cache_hit_rate() > 0.0;
    let on = |step: u32| if step > 0 && cached { Decision::Reuse } else { Decision::Compute };
    e.schedule = Schedule::from_fn(layout, steps, |step, _| on(step)).unwrap();
    e
}

fn uncached() -> Evaluation {
    made(0, 1, "seed", "uncached", 1.0, [1.0, 1.0])
}

/// The same schedules with what they show on other prompts.
fn again(e: &Evaluation, speedup: f64, values: [f64; 2]) -> Evaluation {
    let candidate = e.candidate.0 + 100;
    Evaluation { schedule: e.schedule.clone(), ..made(candidate, 1, "seed", "imported", speedup, values) }
}

fn report(front: &[Evaluation], seeds: &[Evaluation], held_out: &[Evaluation]) -> Report {
    let search = search();
    let evaluations: Vec<Evaluation> = [uncached()].iter().chain(seeds).chain(front).cloned().collect();
    let seen = Measured { search: &search, evaluations: &evaluations };
    Report::new(&seen, front, &Measured { search: &search, evaluations: held_out }, 0.98).unwrap()
}

#[test]
fn a_member_holds_unless_it_falls_below_or_another_surely_beats_it() {
    let best = made(1, 2, "shift", "fora", 2.0, [0.99, 0.99]);
    let fallen = made(2, 3, "shift", "fora", 3.0, [0.985, 0.985]);
    let beaten = shorter(made(3, 2, "shift", "fora", 2.1, [0.97, 0.97]), 3);
    let near = shorter(made(4, 2, "shift", "fora", 1.9, [0.97, 0.97]), 2);
    let front = [fallen, beaten, best, near];
    let held_out = [
        uncached(),
        again(&front[0], 3.0, [0.96, 0.98]),
        again(&front[1], 1.9, [0.93, 0.95]),
        again(&front[2], 2.0, [0.98, 1.0]),
        // Worse on one prompt and better on the other: that may be luck.
        again(&front[3], 1.9, [0.99, 0.95]),
    ];
    let report = report(&front, &[], &held_out);
    let verdicts: Vec<(u64, Verdict)> = report.front.iter().map(|(row, v)| (row.candidate.0, *v)).collect();
    assert_eq!(
        verdicts,
        [(2, Verdict::Below), (3, Verdict::Beaten(CandidateId(1))), (1, Verdict::Held), (4, Verdict::Held)]
    );
    assert_eq!((report.held(), report.prompts, report.missing.len()), (2, 2, 0));
    let told = text::report(&report);
    // 0.96 and 0.98 are 0.03 ± 0.01 from the uncached run.
    for words in ["2 of 4 schedules", "did not hold: below 98.0 %", "did not hold: 1 beats it", "97.0 % ±1.0 %"] {
        assert!(told.contains(words), "'{words}' is not in {told}");
    }
}

#[test]
fn what_is_chosen_by_the_search_and_by_the_held_out_prompts_is_told_apart() {
    // In the search the faster one was good enough; on the held-out prompts it is not.
    let front = [
        made(11, 3, "shift", "fora", 3.0, [0.985, 0.985]),
        shorter(made(10, 2, "shift", "fora", 2.0, [0.99, 0.99]), 3),
    ];
    let seeds = [
        made(5, 2, "seed", "fora", 1.5, [0.99, 0.99]),
        made(6, 4, "seed", "imported", 4.0, [0.99, 0.99]),
        shorter(made(7, 1, "seed", "fewer-steps", 1.25, [0.99, 0.99]), 3),
    ];
    let held_out = [
        uncached(),
        again(&front[0], 3.0, [0.96, 0.96]),
        again(&front[1], 2.0, [0.99, 0.99]),
        again(&seeds[0], 1.6, [0.995, 0.995]),
        again(&seeds[1], 4.0, [0.99, 0.99]),
        again(&seeds[2], 1.25, [0.99, 0.99]),
    ];
    let report = report(&front, &seeds, &held_out);
    let id = |row: Option<&Row>| row.map(|r| r.candidate.0);

    let fair = report.comparison(Basis::Seen);
    assert_eq!([fair.front, fair.heuristic, fair.fewer_steps].map(id), [Some(11), Some(5), Some(7)]);
    assert!(fair.front.is_some_and(|row| row.held_out.ratio < 0.98), "the held-out figure is reported unchanged");

    let oracle = report.comparison(Basis::HeldOut);
    assert_eq!([oracle.front, oracle.heuristic, oracle.fewer_steps].map(id), [Some(10), Some(5), Some(7)]);
    assert_eq!(
        oracle.families.iter().map(|(family, row)| (*family, id(*row))).collect::<Vec<_>>(),
        [("fewer-steps", Some(7)), ("fora", Some(5)), ("imported", Some(6))]
    );
    let (gain, error) = oracle.gain_over(oracle.heuristic).unwrap();
    assert!((gain - 1.25).abs() < 1e-9 && (error - 1.25 * 0.01 * 2.0_f64.sqrt()).abs() < 1e-9, "{gain} ±{error}");
    assert_eq!([oracle.as_good_fastest, oracle.as_good_most_cached].map(id), [Some(5), Some(5)]);

    let value = json::report(&report);
    assert_eq!(value["chosen_in_sample"]["front"]["candidate"], 11);
    assert_eq!(value["chosen_held_out"]["front_over_heuristic"]["value"], gain);
    assert_eq!(value["front"][0]["verdict"], "below");
    assert_eq!(value["chosen_held_out"]["heuristics_as_good"]["front_over_fastest"]["value"], gain);
    for rival in ["the heuristic", "the fastest heuristic with its quality or better"] {
        let told = format!("the front's is 1.25x ±0.02 as fast as {rival}\n");
        assert!(text::report(&report).contains(&told), "{}", text::report(&report));
    }
    // In short, as the search chose; and the plain run of three steps was on the folder's grid.
    let told = text::report(&report);
    let in_short = "in short: 1 of 2 schedules held; candidate 11 is 3.00x ±0.03 as fast as uncached and keeps 96.0 % ±0.0 %, \
                    which is not enough: 2.40x ±0.03 as fast as the plain run with fewer steps\n";
    assert!(told.ends_with(in_short) && told.contains("fewer-steps with 3 steps uses the sampler's default"), "{told}");
    assert_eq!(value["fewer_steps_not_told"], serde_json::json!([3]));
}

#[test]
fn a_plain_run_that_is_the_fastest_is_not_compared_with_itself() {
    let plain = shorter(made(7, 1, "seed", "fewer-steps", 3.0, [0.99, 0.99]), 2);
    let seen = std::slice::from_ref(&plain);
    let told = text::report(&report(seen, seen, &[uncached(), again(&plain, 3.0, [0.99, 0.99])]));
    assert!(told.ends_with("it is the plain run with fewer steps, to which caching adds nothing\n"), "{told}");
}

#[test]
fn what_was_not_measured_is_named() {
    let front = [made(1, 2, "shift", "fora", 2.0, [0.99, 0.99]), made(2, 3, "shift", "fora", 3.0, [0.99, 0.99])];
    let told = report(&front, &[], &[uncached(), again(&front[0], 2.0, [0.99, 0.99])]);
    assert_eq!(told.missing, [CandidateId(2)]);
    let none = told.comparison(Basis::HeldOut);
    assert!(none.heuristic.is_none() && none.gain_over(none.heuristic).is_none() && none.as_good_fastest.is_none());
    assert!(text::report(&told).contains("not measured on them: candidates 2"));

    let search = search();
    let measured = Measured { search: &search, evaluations: &front };
    assert!(Report::new(&measured, &front, &measured, 0.98).is_none(), "no uncached run");
}

#[test]
fn of_several_measurements_the_best_founded_counts_and_parts_never_do() {
    let search = search();
    let once = Evaluation { estimate: None, ..made(1, 2, "seed", "fora", 2.0, [0.99, 0.99]) };
    let twice = made(2, 2, "remeasure", "fora", 1.9, [0.99, 0.99]);
    let part = sample(3, 3, &[0.99]);
    let evaluations = [once, twice, part];
    let by_schedule = Measured { search: &search, evaluations: &evaluations }.by_schedule();
    assert_eq!(by_schedule.values().map(|e| e.candidate.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn metrics_that_are_not_quality_are_told_too() {
    use evocache_proto::domain::MetricValues;
    let member = made(9, 4, "shift", "fora", 2.0, [0.99, 1.0]);
    let with_psnr = |mut e: Evaluation, values: [f64; 2]| {
        let psnr = MetricValues { name: "psnr".into(), values: values.to_vec(), baseline_mean: 100.0 };
        e.measurement.metrics.push(psnr);
        e
    };
    let held_out = [with_psnr(uncached(), [100.0, 100.0]), with_psnr(again(&member, 2.0, [0.99, 1.0]), [24.0, 26.0])];
    let r = report(std::slice::from_ref(&member), &[], &held_out);
    let told = text::report(&r);
    assert!(told.contains("other metrics on the held-out prompts"), "{told}");
    assert!(told.contains("100.0000") && told.contains("25.0000 ±1.0000"), "{told}");
    let psnr = &json::report(&r)["front"][0]["held_out"]["metrics"]["psnr"];
    assert_eq!(
        (&psnr["mean"], &psnr["uncached"], &psnr["difference_error"]),
        (&25.0.into(), &100.0.into(), &1.0.into())
    );
    // Quality alone needs no second table.
    let plain = report(std::slice::from_ref(&member), &[], &[uncached(), again(&member, 2.0, [0.99, 1.0])]);
    assert!(!text::report(&plain).contains("other metrics"));
}
