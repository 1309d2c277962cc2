//! Tests of the breeder as a whole, on synthetic landscapes.

use std::collections::{BTreeSet, VecDeque};

use evocache_proto::domain::{
    BlockGroup, Component, Decision, Imported, Maker, Measurement, Origin, PromptSet, SpecDraft,
};

use super::*;
use crate::archive::Inserted;
use crate::search::testing::{run, run_at_random, run_with};
use crate::search::{Proposal, Provenance, TellError};
use evocache_testkit::landscape::{Landscape, draft, spec};

fn small() -> Layout {
    Layout::pixart(4).unwrap()
}

fn is_planned(origin: &Origin) -> bool {
    matches!(origin, Origin::New(Maker::Planned(_)))
}

fn one_slot() -> Layout {
    Layout::new(vec![BlockGroup { name: "block".into(), count: 1, components: vec![Component::new("ff")] }]).unwrap()
}

#[test]
fn breeding_beats_random_search_and_its_seeds() {
    for seed in 1..=3 {
        let steps = [20, 12];
        let bred = run(draft(Strategy::SteadyState, &steps, 500, seed), small(), 4);
        let random = run_at_random(draft(Strategy::SteadyState, &steps, 500, seed), small());
        let (bred, seeds, random) = (bred.hypervolume(), bred.seeds_hypervolume(), random.hypervolume());
        assert!(bred > 1.08 * seeds, "bred {bred} against its seeds' {seeds}");
        assert!(bred > 1.08 * random, "bred {bred} against random's {random}");
    }
}

#[test]
fn the_first_twenty_seeds_already_span_the_front() {
    let twenty = run(draft(Strategy::SteadyState, &[20, 12], 20, 1), small(), 1);
    let random = run_at_random(draft(Strategy::SteadyState, &[20, 12], 20, 1), small());
    assert!(twenty.hypervolume() > random.hypervolume());
}

#[test]
fn candidate_zero_is_the_uncached_run_with_every_strategy() {
    for strategy in [Strategy::SteadyState, Strategy::Nsga2] {
        let breeder = Breeder::new(spec(draft(strategy, &[8, 4], 10, 1)), Arc::new(small())).unwrap();
        let first = breeder.ask(CandidateId(0)).unwrap();
        assert_eq!((first.schedule.steps(), first.schedule.cache_hit_rate()), (8, 0.0));
        assert_eq!(first.provenance.origin, Origin::New(Maker::Seed));
        assert_eq!(Breeder::first_proposal(&breeder.spec, breeder.layout()).unwrap(), first);
        assert_ne!(breeder.ask(CandidateId(1)).unwrap().schedule, first.schedule);
    }
}

#[test]
fn no_schedule_is_proposed_twice_even_before_the_first_result() {
    for search in [true, false] {
        let parts = Parts { search, ..Parts::default() };
        let spec = spec(draft(Strategy::SteadyState, &[6, 4], 100, 1));
        let mut breeder = Breeder::with_parts(spec, Arc::new(small()), parts).unwrap();
        let mut seen = BTreeSet::new();
        for index in (0..300).map(CandidateId) {
            let proposal = breeder.ask(index).unwrap();
            assert!(seen.insert(proposal.schedule.id()), "{index} repeats a schedule");
            breeder.record(index, &proposal);
        }
    }
}

#[test]
fn a_tiny_space_is_searched_completely() {
    for (search, forecast, size) in [(true, false, 16 + 4), (false, false, 16 + 4), (true, true, 34)] {
        let mut draft = draft(Strategy::SteadyState, &[5, 3], 1000, 1);
        (draft.forecast, draft.algorithm.remeasure) = (forecast, false);
        let landscape = Landscape::new(&one_slot(), 5);
        let parts = Parts { search, ..Parts::default() };
        let mut breeder = Breeder::with_parts(spec(draft), Arc::new(one_slot()), parts).unwrap();
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
        // A forecast from one output is a reuse, so fewer than 81 + 9 schedules are distinct.
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
    let mut draft = draft(Strategy::SteadyState, &[20, 12], 150, 5);
    draft.algorithm.remeasure = false;
    let breeder = run(draft, small(), 2);
    let (mut two_parents, mut planned) = (0, 0);
    for index in (150..450).map(CandidateId) {
        let Provenance { parents, origin, seed_family } = (*breeder.ask(index).unwrap().provenance).clone();
        if is_planned(&origin) {
            assert!(parents.is_empty() && seed_family == "model");
            planned += 1;
            continue;
        }
        let is_bred = matches!(&origin, Origin::New(Maker::Bred(operators)) if !operators.is_empty());
        assert!((1..=2).contains(&parents.len()) && is_bred, "{origin} of {parents:?}");
        assert_eq!(breeder.ledger.get(parents[0]).unwrap().provenance.seed_family, seed_family);
        two_parents += usize::from(parents.len() == 2);
    }
    assert!(two_parents > 10 && planned > 50, "{two_parents} {planned}");
}

#[test]
fn state_depends_on_the_order_of_results_and_not_on_when_candidates_are_recorded() {
    // Live, a candidate is recorded when it is proposed; after a restart, all are recorded before the first result.
    let mut live = Breeder::new(spec(draft(Strategy::SteadyState, &[10, 6], 120, 3)), Arc::new(small())).unwrap();
    let landscape = Landscape::new(&small(), 10);
    let mut planner = live.new_planner();
    let mut proposals = Vec::new();
    for index in (0..120).map(CandidateId) {
        let proposal = live.ask(index).unwrap();
        live.record(index, &proposal);
        live.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
        live.plan_now(&mut planner);
        proposals.push(proposal);
    }
    let mut replayed = Breeder::new(live.spec.clone(), Arc::new(small())).unwrap();
    for (index, proposal) in (0..).map(CandidateId).zip(&proposals) {
        replayed.record(index, proposal);
    }
    for (index, proposal) in (0..).map(CandidateId).zip(&proposals) {
        replayed.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
    }
    assert!(facts(&live) == facts(&replayed));
    assert_eq!(facts(&live).ask(CandidateId(120)), facts(&replayed).ask(CandidateId(120)));
    // A new planner gets all inputs, and its plan takes effect when the next request would have been due.
    replayed.restart_planner();
    let mut planner = replayed.new_planner();
    replayed.plan_now(&mut planner);
    assert!(!replayed.awaits_plan() && replayed.model_correlations().is_empty());
    for index in (120..140).map(CandidateId) {
        let proposal = replayed.ask(index).unwrap();
        replayed.record(index, &proposal);
        replayed.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
        replayed.plan_now(&mut planner);
    }
    assert!(!replayed.model_correlations().is_empty());
}

/// The state that depends on facts alone, without plans.
fn facts(breeder: &Breeder) -> Breeder {
    Breeder { planner_link: None, ..breeder.clone() }
}

#[test]
fn nothing_is_proposed_while_a_plan_is_due_and_its_time_of_arrival_changes_nothing() {
    let landscape = Landscape::new(&small(), 10);
    // Three candidates in flight, results in order; the planner answers at once, or as late as possible.
    let run = |late: bool| {
        let mut breeder =
            Breeder::new(spec(draft(Strategy::SteadyState, &[10, 6], 120, 3)), Arc::new(small())).unwrap();
        let (mut planner, mut open, mut waited) = (breeder.new_planner(), VecDeque::new(), 0);
        let mut proposals = Vec::new();
        for index in (0..120).map(CandidateId) {
            if breeder.awaits_plan() {
                assert_eq!(breeder.ask(index), None);
                breeder.plan_now(&mut planner);
                waited += 1;
            }
            let proposal = breeder.ask(index).unwrap();
            breeder.record(index, &proposal);
            open.push_back((index, proposal.clone()));
            proposals.push(proposal);
            if open.len() == 3 {
                let (index, proposal) = open.pop_front().unwrap();
                breeder.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
            }
            if !late {
                breeder.plan_now(&mut planner);
            }
        }
        (proposals, waited)
    };
    let ((prompt, never), (late, often)) = (run(false), run(true));
    assert_eq!(prompt, late);
    assert!(never == 0 && often > 10, "{never} {often}");
    assert!(prompt.iter().any(|p| is_planned(&p.provenance.origin)));
}

#[test]
fn there_are_no_plans_if_evaluations_take_no_time() {
    let landscape = Landscape::new(&small(), 20);
    let quick = run_with(draft(Strategy::SteadyState, &[20], 200, 1), small(), 4, |_, proposal| {
        let mut measurement = landscape.measure(&proposal.schedule);
        measurement.device_time = std::time::Duration::ZERO;
        measurement
    });
    let planned = |b: &Breeder| b.operator_shares().iter().any(|s| s.operator.starts_with("model-"));
    assert!(!planned(&quick) && planned(&run(draft(Strategy::SteadyState, &[20], 200, 1), small(), 4)));
}

#[test]
fn every_result_is_booked_and_gains_add_up_to_the_hypervolume() {
    let breeder = run(draft(Strategy::SteadyState, &[20, 12], 150, 4), small(), 2);
    let shares = breeder.operator_shares();
    let gain: f64 = shares.iter().map(|s| s.gain).sum();
    // Latency estimates have changed slightly since the gains were booked.
    assert!((gain - breeder.hypervolume()).abs() < 0.01, "{gain} {}", breeder.hypervolume());
    let of = |name: &str| shares.iter().find(|s| s.operator == name).map_or(0, |s| s.results);
    assert!(of("seed") > 24 && of("model-greedy") > 0, "{shares:?}");
}

#[test]
fn a_search_works_without_any_one_part() {
    for parts in [
        Parts { operators: false, ..Parts::default() },
        Parts { selection: false, ..Parts::default() },
        Parts { planning: false, ..Parts::default() },
    ] {
        let spec = spec(draft(Strategy::SteadyState, &[10], 80, 3));
        let mut breeder = Breeder::with_parts(spec, Arc::new(small()), parts).unwrap();
        let landscape = Landscape::new(&small(), 10);
        let mut planner = breeder.new_planner();
        assert_eq!(planner.is_some(), parts.planning);
        for index in (0..80).map(CandidateId) {
            let proposal = breeder.ask(index).unwrap();
            breeder.record(index, &proposal);
            breeder.tell(index, &landscape.measure(&proposal.schedule)).unwrap();
            breeder.plan_now(&mut planner);
        }
        let planned = breeder.operator_shares().iter().any(|s| s.operator.starts_with("model-"));
        assert_eq!(planned, parts.planning);
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
    let (spec, other) = (spec(draft), Arc::new(one_slot()));
    let error = Breeder::new(spec.clone(), other.clone()).unwrap_err();
    assert_eq!(Breeder::first_proposal(&spec, &other).unwrap_err(), error);
    assert!(error.to_string().contains("'mine' is for layout block*4"), "{error}");
}

#[test]
fn a_result_is_accepted_once_and_only_for_a_recorded_candidate() {
    let mut breeder = Breeder::new(spec(draft(Strategy::SteadyState, &[6], 50, 1)), Arc::new(small())).unwrap();
    let measurement = Landscape::new(&small(), 6).measure(&breeder.baseline);
    let zero = CandidateId(0);
    assert_eq!(breeder.tell(zero, &measurement), Err(TellError::Unknown(zero)));
    let proposal = breeder.ask(zero).unwrap();
    breeder.record(zero, &proposal);
    let mut other = measurement.clone();
    other.metrics[0].name = "other".into();
    assert!(matches!(breeder.tell(zero, &other), Err(TellError::Score(..))));
    assert_eq!(breeder.tell(zero, &measurement), Ok(Some(Inserted::Joined(0))));
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
        assert_eq!(breeder.ledger.all().any(|(_, c)| c.schedule.forecasts()), forecast);
    }
}

#[test]
fn guidance_decisions_appear_only_where_they_are_allowed_and_save_passes() {
    let best = |allowed: bool| {
        let mut draft = draft(Strategy::SteadyState, &[12, 8], 300, 4);
        draft.sampling.guidance_scale = 3.0;
        draft.guidance_decisions = allowed;
        let breeder = run(draft, small(), 2);
        let guided = breeder.ledger.all().filter(|(_, c)| c.schedule.decides_guidance()).count();
        let planned = breeder.ledger.all().filter(|(_, c)| is_planned(&c.provenance.origin)).count();
        (guided, planned, breeder.hypervolume())
    };
    let ((none, _, without), (some, planned, with)) = (best(false), best(true));
    assert!(none == 0 && some > 100 && planned > 30, "{none} {some} {planned}");
    assert!(with > 1.02 * without, "{with} {without}");
}

/// Six prompts of different difficulty, each with its own sensitivity to the schedule's error.
fn by_prompt(landscape: &Landscape, proposal: &Proposal) -> Measurement {
    let mut measurement = landscape.measure(&proposal.schedule);
    let loss = 1.0 - measurement.metrics[0].values[0];
    let prompts = proposal.prompts.count(6);
    let all = |scale: f64| (0..prompts).map(move |i| 0.6 + 0.1 * i as f64 - scale * (0.5 + 0.2 * i as f64));
    measurement.metrics[0].values = all(loss).collect();
    measurement.metrics[0].baseline_mean = all(0.0).sum::<f64>() / prompts as f64;
    measurement
}

#[test]
fn only_promising_candidates_are_evaluated_on_all_prompts_and_only_these_join_the_front() {
    let landscape = Landscape::new(&small(), 12);
    let mut draft = draft(Strategy::SteadyState, &[12], 300, 3);
    draft.prompts = (0..6).map(|seed| evocache_proto::domain::Prompt { text: "an owl".into(), seed }).collect();
    draft.algorithm.rungs = vec![2];
    let measure = |_, proposal: &Proposal| by_prompt(&landscape, proposal);
    let breeder = run_with(draft.clone(), small(), 3, measure);
    let promoted = breeder.ledger.all().filter(|(_, c)| c.provenance.promotes().is_some()).count();
    let partial = breeder.ledger.all().filter(|(_, c)| c.prompts == PromptSet::from_number(2)).count();
    assert!(promoted > 20 && promoted * 2 < partial, "{promoted} of {partial}");
    for member in breeder.front().members() {
        assert_eq!(breeder.ledger.get(member.candidate).unwrap().prompts, PromptSet::All);
    }
    assert!(breeder.standing().all(|(c, _)| breeder.ledger.get(c).unwrap().prompts == PromptSet::All));
    // Credit goes to the maker of a candidate, not to its promotion.
    let shares = breeder.operator_shares();
    assert!(shares.iter().all(|s| !s.operator.starts_with("promote")) && shares.len() > 5, "{shares:?}");
    // The run is reproducible, and so is a replay of its facts in the order of a restart.
    assert!(breeder == run_with(draft.clone(), small(), 3, measure));
    let mut replayed = Breeder::new(spec(draft), Arc::new(small())).unwrap();
    for (index, c) in breeder.ledger.all() {
        replayed.record(
            index,
            &Proposal { schedule: c.schedule.clone(), provenance: c.provenance.clone(), prompts: c.prompts },
        );
    }
    for (index, c) in breeder.ledger.all() {
        let proposal = Proposal { schedule: c.schedule.clone(), provenance: c.provenance.clone(), prompts: c.prompts };
        replayed.tell(index, &by_prompt(&landscape, &proposal)).unwrap();
    }
    replayed.rescore();
    assert!(facts(&breeder) == facts(&replayed));
}

#[test]
fn nsga2_waits_for_its_generations_and_evolves() {
    let mut draft = draft(Strategy::Nsga2, &[20, 12], 400, 1);
    draft.algorithm.population = 40;
    let breeder = Breeder::new(spec(draft.clone()), Arc::new(small())).unwrap();
    assert!(breeder.ask(CandidateId(40)).is_some() && breeder.ask(CandidateId(41)).is_none());
    let evolved = run(draft, small(), 8);
    assert_eq!(evolved.ledger.all().count(), 400);
    assert!(evolved.ledger.all().any(|(_, c)| c.provenance.origin == Origin::bred(["four-point"])));
    assert!(evolved.hypervolume() > 1.005 * evolved.seeds_hypervolume());
}

#[test]
fn a_calibration_profile_adds_seeds() {
    let landscape = Landscape::new(&small(), 12);
    // Blocks change at different rates, attention less than other components.
    let slot = |slot: usize| 0.02 * (1.0 + slot as f32 / 4.0) * if slot.is_multiple_of(3) { 0.3 } else { 1.0 };
    let changes = (1..=3).flat_map(|lag| (0..12).flat_map(move |_| (0..12).map(move |s| slot(s) * lag as f32)));
    let profile = evocache_proto::domain::Profile::new(12, 3, changes.collect()).unwrap();
    let mut families = BTreeSet::new();
    let breeder = run_with(draft(Strategy::SteadyState, &[12, 8], 200, 1), small(), 4, |index, proposal| {
        families.insert(proposal.provenance.seed_family.clone());
        let mut measurement = landscape.measure(&proposal.schedule);
        measurement.profile = (index == CandidateId(0)).then(|| profile.clone());
        measurement
    });
    assert!(breeder.is_profiled() && families.contains("smooth") && families.contains("path"), "{families:?}");
    assert!(!run(draft(Strategy::SteadyState, &[12, 8], 60, 1), small(), 4).is_profiled());
}

#[test]
fn an_imported_front_is_resampled_and_helps_on_a_related_landscape() {
    // As from PixArt-α to PixArt-Σ: the same layout, different sensitivities and step counts.
    let (source, target) = (Landscape::new(&small(), 20), Landscape::related(&small(), 14));
    let run = |draft: SpecDraft, landscape: &Landscape| {
        run_with(draft, small(), 4, |_, proposal| landscape.measure(&proposal.schedule))
    };
    let source = run(draft(Strategy::SteadyState, &[20], 400, 1), &source);
    let members = source.front().members();
    let every = members.len() / 12;
    let imported = members.iter().step_by(every).map(|m| Imported {
        name: m.candidate.to_string(),
        schedule: source.schedule(m.candidate).unwrap().as_ref().clone(),
    });
    let without = draft(Strategy::SteadyState, &[14], 60, 2);
    let mut with = without.clone();
    with.imported = imported.collect();
    let moved = Breeder::new(spec(with.clone()), Arc::new(small())).unwrap();
    let first = moved.next_seed.as_ref().unwrap();
    assert_eq!((first.family, first.schedule.steps()), ("imported", 14));
    let (with, without) = (run(with, &target).hypervolume(), run(without, &target).hypervolume());
    assert!(with > 1.01 * without, "{with} {without}");
}

#[test]
fn the_imported_strategy_measures_each_schedule_twice() {
    let source = run(draft(Strategy::SteadyState, &[8], 60, 1), small(), 1);
    let mut draft = draft(Strategy::Imported, &[8], 1000, 1);
    let schedule = |id: u64| source.schedule(CandidateId(id)).unwrap().as_ref().clone();
    draft.imported = (5..9).map(|id| Imported { name: id.to_string(), schedule: schedule(id) }).collect();
    let breeder = run(draft, small(), 2);
    assert_eq!(breeder.ledger.all().count(), 10);
    assert!(breeder.standing().all(|(c, _)| breeder.latency_ratio(c).unwrap().measurements == 2));
    assert_eq!(breeder.ask(CandidateId(10)), None);
}

#[test]
fn stagnation_is_counted() {
    let mut draft = draft(Strategy::Nsga2, &[20], 300, 1);
    draft.budget.stagnation = Some(50);
    let breeder = run(draft, small(), 1);
    assert!(breeder.stagnant() > 0 && breeder.stagnant() < 300, "{}", breeder.stagnant());
}
