//! Tests of the breeder as a whole, on synthetic landscapes.

use std::collections::BTreeSet;

use evocache_proto::domain::{BlockGroup, Component, Decision, Imported};

use super::*;
use crate::domain::search::landscape::{Landscape, draft, run, spec};

fn small() -> Layout {
    Layout::pixart(4).unwrap()
}

fn one_slot() -> Layout {
    Layout::new(vec![BlockGroup { name: "block".into(), count: 1, components: vec![Component::new("ff")] }]).unwrap()
}

#[test]
fn breeding_beats_chance_and_the_seeds_it_started_from() {
    for seed in 1..=3 {
        let steps = [20, 12];
        let bred = run(draft(Strategy::SteadyState, &steps, 500, seed), small(), 4);
        let random = run(draft(Strategy::Random, &steps, 500, seed), small(), 4);
        let (bred, seeds, random) = (bred.hypervolume(), bred.seeds_hypervolume(), random.hypervolume());
        assert!(bred > 1.08 * seeds, "bred {bred} against its seeds' {seeds}");
        assert!(bred > 1.08 * random, "bred {bred} against random's {random}");
    }
}

#[test]
fn the_first_twenty_seeds_already_span_the_front() {
    let twenty = run(draft(Strategy::SteadyState, &[20, 12], 20, 1), small(), 1);
    let random = run(draft(Strategy::Random, &[20, 12], 20, 1), small(), 1);
    assert!(twenty.hypervolume() > random.hypervolume());
}

#[test]
fn candidate_zero_is_the_uncached_run_whatever_the_strategy() {
    for strategy in [Strategy::SteadyState, Strategy::Random] {
        let breeder = Breeder::new(spec(draft(strategy, &[8, 4], 10, 1)), Arc::new(small())).unwrap();
        let first = breeder.ask(CandidateId(0)).unwrap();
        assert_eq!((first.schedule.steps(), first.schedule.cache_hit_rate()), (8, 0.0));
        assert_eq!(first.provenance.operator, "seed");
        assert_ne!(breeder.ask(CandidateId(1)).unwrap().schedule, first.schedule);
    }
}

#[test]
fn no_schedule_is_proposed_twice_though_none_is_measured_yet() {
    for strategy in [Strategy::SteadyState, Strategy::Random] {
        let mut breeder = Breeder::new(spec(draft(strategy, &[6, 4], 100, 1)), Arc::new(small())).unwrap();
        let mut seen = BTreeSet::new();
        for index in (0..300).map(CandidateId) {
            let proposal = breeder.ask(index).unwrap();
            assert!(seen.insert(proposal.schedule.id()), "{index} repeats a schedule");
            breeder.record(index, &proposal);
        }
    }
}

#[test]
fn a_tiny_space_is_searched_to_its_end_and_then_there_is_nothing() {
    for (strategy, forecast, size) in
        [(Strategy::SteadyState, false, 16 + 4), (Strategy::Random, false, 16 + 4), (Strategy::SteadyState, true, 34)]
    {
        let mut draft = draft(strategy, &[5, 3], 1000, 1);
        draft.forecast = forecast;
        let landscape = Landscape::new(&one_slot(), 5);
        let mut breeder = Breeder::new(spec(draft), Arc::new(one_slot())).unwrap();
        let mut found = 0;
        while let Some(proposal) = breeder.ask(CandidateId(found)) {
            breeder.record(CandidateId(found), &proposal);
            if found % 3 == 2 {
                breeder.fail(CandidateId(found)).unwrap();
            } else {
                breeder.tell(CandidateId(found), &landscape.measure(&proposal.schedule)).unwrap();
            }
            found += 1;
        }
        // With forecasts, a forecast from one output is a reuse, so fewer than 81 + 9 are distinct.
        if forecast { assert!(found >= size, "{found}") } else { assert_eq!(found, size) }
    }
}

#[test]
fn asking_is_pure_and_equal_facts_make_equal_breeders() {
    let a = run(draft(Strategy::SteadyState, &[20, 12], 120, 5), small(), 3);
    let b = run(draft(Strategy::SteadyState, &[20, 12], 120, 5), small(), 3);
    assert!(a == b);
    for index in [120, 121, 5000].map(CandidateId) {
        let proposal = a.ask(index).unwrap();
        assert_eq!(Some(&proposal), a.ask(index).as_ref());
        assert_eq!(Some(&proposal), b.ask(index).as_ref());
    }
    let other = run(draft(Strategy::SteadyState, &[20, 12], 120, 6), small(), 3);
    assert_ne!(a.ask(CandidateId(120)), other.ask(CandidateId(120)));
}

#[test]
fn offspring_name_their_parents_and_inherit_the_first_ones_family() {
    let breeder = run(draft(Strategy::SteadyState, &[20, 12], 150, 5), small(), 2);
    let (mut two_parents, mut planned) = (0, 0);
    for index in (150..450).map(CandidateId) {
        let Provenance { parents, operator, seed_family } = breeder.ask(index).unwrap().provenance;
        if operator.starts_with("model-") {
            assert!(parents.is_empty() && seed_family == "model");
            planned += 1;
            continue;
        }
        assert!((1..=2).contains(&parents.len()) && !operator.is_empty(), "{operator} of {parents:?}");
        assert_eq!(breeder.candidates[&parents[0]].family, seed_family);
        two_parents += usize::from(parents.len() == 2);
    }
    assert!(two_parents > 10 && planned > 50, "{two_parents} {planned}");
}

#[test]
fn state_depends_on_the_order_of_results_and_not_on_when_candidates_were_recorded() {
    // Live, a candidate is recorded when it is asked for; after a restart all are recorded before the first result.
    let mut live = Breeder::new(spec(draft(Strategy::SteadyState, &[10, 6], 120, 3)), Arc::new(small())).unwrap();
    let landscape = Landscape::new(&small(), 10);
    let mut proposals = Vec::new();
    for index in (0..120).map(CandidateId) {
        let proposal = live.ask(index).unwrap();
        live.record(index, &proposal);
        live.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
        proposals.push(proposal);
    }
    let mut replayed = Breeder::new(live.spec.clone(), Arc::new(small())).unwrap();
    for (index, proposal) in (0..).map(CandidateId).zip(&proposals) {
        replayed.record(index, proposal);
    }
    for (index, proposal) in (0..).map(CandidateId).zip(&proposals) {
        replayed.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
    }
    assert!(live == replayed);
    assert_eq!(live.ask(CandidateId(120)), replayed.ask(CandidateId(120)));
}

#[test]
fn every_result_is_booked_and_gains_add_up_to_the_hypervolume() {
    let breeder = run(draft(Strategy::SteadyState, &[20, 12], 150, 4), small(), 2);
    let shares = breeder.operator_shares();
    let gain: f64 = shares.iter().map(|s| s.gain).sum();
    assert!((gain - breeder.hypervolume()).abs() < 1e-9, "{gain} {}", breeder.hypervolume());
    let of = |name: &str| shares.iter().find(|s| s.operator == name).map_or(0, |s| s.results);
    assert!(of("seed") > 24 && of("model-greedy") > 0, "{shares:?}");
}

#[test]
fn a_search_without_a_part_still_searches() {
    for parts in [
        Parts { operators: false, ..Parts::default() },
        Parts { selection: false, ..Parts::default() },
        Parts { model: false, ..Parts::default() },
    ] {
        let spec = spec(draft(Strategy::SteadyState, &[10], 80, 3));
        let mut breeder = Breeder::with_parts(spec, Arc::new(small()), parts).unwrap();
        let landscape = Landscape::new(&small(), 10);
        for index in (0..80).map(CandidateId) {
            let proposal = breeder.ask(index).unwrap();
            breeder.record(index, &proposal);
            breeder.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
        }
        let planned = breeder.operator_shares().iter().any(|s| s.operator.starts_with("model-"));
        assert_eq!(planned, parts.model);
        assert!(breeder.hypervolume() >= breeder.seeds_hypervolume());
    }
}

#[test]
fn imported_schedules_come_first_and_must_fit_the_layout() {
    let mut draft = draft(Strategy::SteadyState, &[6], 50, 1);
    let mine = Schedule::from_fn(Arc::new(small()), 6, |step, slot| {
        if (step as usize + slot).is_multiple_of(3) { Decision::Compute } else { Decision::Reuse }
    });
    draft.imported = vec![Imported { name: "mine".into(), schedule: mine.unwrap() }];
    let imported = draft.imported[0].schedule.clone();
    let breeder = Breeder::new(spec(draft.clone()), Arc::new(small())).unwrap();
    let first = breeder.ask(CandidateId(1)).unwrap();
    assert_eq!((first.schedule.id(), first.provenance.seed_family.as_str()), (imported.id(), "imported"));
    let error = Breeder::new(spec(draft), Arc::new(one_slot())).unwrap_err();
    assert!(error.to_string().contains("'mine' is for layout block*4"), "{error}");
}

#[test]
fn a_result_is_taken_once_and_only_for_what_exists() {
    let mut breeder = Breeder::new(spec(draft(Strategy::SteadyState, &[6], 50, 1)), Arc::new(small())).unwrap();
    let measurement = Landscape::new(&small(), 6).measure(&breeder.baseline);
    let zero = CandidateId(0);
    assert_eq!(breeder.tell(zero, &measurement), Err(TellError::Unknown(zero)));
    let proposal = breeder.ask(zero).unwrap();
    breeder.record(zero, &proposal);
    let mut other = measurement.clone();
    other.metrics[0].name = "other".into();
    assert!(matches!(breeder.tell(zero, &other), Err(TellError::Score(..))));
    assert_eq!(breeder.tell(zero, &measurement), Ok(Inserted::Joined(0)));
    assert_eq!(breeder.tell(zero, &measurement), Err(TellError::Finished(zero)));
    assert_eq!(breeder.fail(zero), Err(TellError::Finished(zero)));
    assert_eq!(breeder.find(&proposal.schedule.id()), Some(zero));
    assert_eq!((breeder.front().len(), breeder.population().count()), (1, 1));
}

#[test]
fn forecasts_appear_only_where_they_are_allowed() {
    for forecast in [false, true] {
        let mut draft = draft(Strategy::SteadyState, &[10, 6], 200, 2);
        draft.forecast = forecast;
        let breeder = run(draft, Layout::flux(2, 2).unwrap(), 2);
        assert_eq!(breeder.candidates.values().any(|c| c.schedule.forecasts()), forecast);
    }
}
