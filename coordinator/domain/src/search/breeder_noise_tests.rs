//! Tests of the breeder with measurements that vary: repeats, estimates, and who repeats.

use std::collections::BTreeMap;

use evocache_proto::domain::Decision;

use super::*;
use crate::rng::Stream;
use crate::search::Witness;
use crate::search::testing::run_with;
use evocache_testkit::landscape::{Landscape, draft, spec};

fn small() -> Layout {
    Layout::pixart(4).unwrap()
}

fn normal(stream: &mut Stream) -> f64 {
    (0..12).map(|_| stream.unit()).sum::<f64>() - 6.0
}

/// Kinds of components cost differently, which the cost model can learn; later blocks cost slightly more, which it
/// cannot.
fn uneven(schedule: &Schedule) -> f64 {
    let cost = |slot: usize| [1.4, 0.5, 1.1][slot % 3] * (0.975 + 0.05 * (slot / 3) as f64 / 3.0);
    let all: f64 = (0..schedule.slots()).map(cost).sum();
    let cells = (0..schedule.steps()).flat_map(|step| (0..schedule.slots()).map(move |slot| (step, slot)));
    let computed = cells.filter(|&(step, slot)| schedule.decision(step, slot) == Decision::Compute);
    computed.map(|(_, slot)| 0.95 * cost(slot) / all / 20.0).sum::<f64>() + 0.05 * f64::from(schedule.steps()) / 20.0
}

/// A search with 20 % noise on each measured latency, and its true latency ratios and qualities.
fn noisy(seed: u64, remeasure: bool) -> (Breeder, BTreeMap<CandidateId, (f64, f64)>) {
    let landscape = Landscape::new(&small(), 20);
    let mut draft = draft(Strategy::SteadyState, &[20, 12], 500, seed);
    draft.algorithm.remeasure = remeasure;
    let mut truths = BTreeMap::new();
    let breeder = run_with(draft, small(), 4, |index, proposal| {
        let mut measurement = landscape.measure(&proposal.schedule);
        measurement.latency_us = vec![1000.0 * uneven(&proposal.schedule)];
        truths.insert(index, (measurement.latency_ratio(), measurement.metrics[0].mean()));
        measurement.latency_us[0] *= (0.2 * normal(&mut Stream::new(seed, "noise", index.0))).exp();
        measurement
    });
    (breeder, truths)
}

/// How much slower, in truth, the worst front member is than a measured schedule of at least its quality.
fn worst(breeder: &Breeder, truths: &BTreeMap<CandidateId, (f64, f64)>) -> f64 {
    let slower = |member: &Member| {
        let (ratio, quality) = truths[&member.candidate];
        let faster = truths.values().filter(|t| t.1 >= quality).map(|t| ratio / t.0 - 1.0);
        faster.fold(0.0, f64::max)
    };
    breeder.front().members().iter().map(|m| slower(m)).fold(0.0, f64::max)
}

#[test]
fn lucky_measurements_do_not_stay_on_the_front() {
    for seed in 1..=3 {
        let (breeder, truths) = noisy(seed, true);
        let noise = breeder.latency_noise().unwrap();
        assert!((0.12..0.28).contains(&noise), "{noise}");
        let worst = worst(&breeder, &truths);
        assert!(worst <= 0.03, "seed {seed}: a member of the front is {worst} slower than necessary");
        let repeats = breeder.ledger.all().filter(|(_, c)| c.provenance.repeats().is_some()).count();
        assert!((4..=125).contains(&repeats), "{repeats} of 500 are repeats");
    }
}

#[test]
fn a_latency_estimate_uses_all_measurements_of_a_schedule() {
    let (breeder, _) = noisy(1, true);
    let (index, repeat) = breeder.ledger.all().find(|(_, c)| c.provenance.repeats().is_some()).unwrap();
    let estimate = breeder.latency_ratio(index).unwrap();
    assert_eq!(Some(estimate), breeder.latency_ratio(repeat.provenance.repeats().unwrap()));
    assert!(estimate.measurements >= 2 && estimate.deviation > 0.0);
    assert!(breeder.standing().all(|(c, _)| breeder.ledger.get(c).unwrap().provenance.repeats().is_none()));
    assert!(noisy(1, false).0.ledger.all().all(|(_, c)| c.provenance.repeats().is_none()));
}

#[test]
fn front_members_are_repeated_by_other_workers() {
    let landscape = Landscape::new(&small(), 20);
    let mut breeder = Breeder::new(spec(draft(Strategy::SteadyState, &[20, 12], 100, 2)), Arc::new(small())).unwrap();
    let mut planner = breeder.new_planner();
    for index in (0..32).map(CandidateId) {
        let proposal = breeder.ask(index).unwrap();
        breeder.record(index, &proposal);
        breeder.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
        breeder.plan_now(&mut planner);
    }
    let next = (32..48).map(CandidateId).find_map(|index| {
        let proposal = breeder.ask(index)?;
        proposal.provenance.repeats().map(|candidate| (index, candidate))
    });
    let (index, chosen) = next.unwrap();
    let elsewhere = breeder.ask_for(index, Witness { alone: &|c| c == chosen, ..Witness::ONLY_WORKER }).unwrap();
    assert_ne!(elsewhere.provenance.parents, [chosen]);
}
