//! Tests of every operator: the result is a schedule of the search, and equal draws give equal results.

use std::sync::Arc;

use evocache_proto::domain::{Decision, Layout, Schedule};
use proptest::prelude::*;

use super::*;
use crate::search::random::any_density;

fn spaces() -> Vec<Space> {
    let (pixart, flux) = (Arc::new(Layout::pixart(3).unwrap()), Arc::new(Layout::flux(2, 3).unwrap()));
    vec![
        Space::new(pixart.clone(), &[10, 7, 1], false),
        Space::new(pixart.clone(), &[10, 1], false).with_guidance(true),
        Space::new(pixart, &[2], false),
        Space::new(flux.clone(), &[9, 4], true),
        Space::new(flux, &[1], true),
    ]
}

/// The genome is a schedule that the search allows.
fn check(space: &Space, genome: &Genome, operator: &str) {
    let schedule = genome.to_schedule(space).unwrap();
    assert!(space.steps().contains(&schedule.steps()), "{operator} made {} steps", schedule.steps());
    assert_eq!(schedule.layout(), space.layout());
    assert!(space.forecast() || !schedule.forecasts(), "{operator} made a forecast");
    let reread = Schedule::from_packed(space.layout().clone(), schedule.steps(), schedule.packed()).unwrap();
    let reread = reread.with_packed_guidance(&schedule.packed_guidance()).unwrap();
    assert!(space.guidance() || !schedule.decides_guidance(), "{operator} decides guidance");
    assert_eq!(reread.id(), schedule.id(), "{operator} is not canonical");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_operator_makes_valid_schedules(seed in any::<u64>()) {
        for (i, space) in spaces().iter().enumerate() {
            let stream = || Stream::new(seed, "test", i as u64);
            let (first, second) = (any_density(space, &mut stream()), any_density(space, &mut Stream::new(seed, "b", 0)));
            for operator in &CROSSOVERS {
                let other = resample(space, &second, first.steps() as u32);
                let cross = || {
                    let mut child = first.clone();
                    (operator.apply)(space, &mut child, &other, &mut stream());
                    child
                };
                let child = cross();
                check(space, &child, operator.name);
                prop_assert_eq!(&child, &cross());
                for step in 0..child.steps() {
                    for slot in 0..child.slots() {
                        let inherited = [first.at(step, slot), other.at(step, slot)];
                        prop_assert!(inherited.contains(&child.at(step, slot)), "{} invents", operator.name);
                    }
                }
            }
            for operator in &MUTATIONS {
                let mutate = || {
                    let mut child = first.clone();
                    (operator.apply)(space, &mut child, &mut stream());
                    child
                };
                let child = mutate();
                if operator.needs.met(space) {
                    check(space, &child, operator.name);
                }
                prop_assert_eq!(&child, &mutate());
            }
        }
    }

    #[test]
    fn offspring_are_valid_and_name_their_operators(seed in any::<u64>(), mutations in 0usize..4) {
        for space in &spaces() {
            let mut stream = Stream::new(seed, "test", 0);
            let parents = [any_density(space, &mut stream), any_density(space, &mut stream)];
            for crossover in [0.0, 1.0] {
                let [first, second] = parents.clone();
                let steps = first.steps();
                let variation = Variation::new(crossover, true);
                let credit = Credit::default();
                let child = variation.offspring(space, first, Some(second), mutations, &credit, &mut stream);
                check(space, &child.genome, &child.operators.join("+"));
                prop_assert_eq!(child.crossed, crossover > 0.5);
                prop_assert!(child.operators.len() >= mutations.max(1));
                prop_assert!(child.genome.steps() == steps || child.operators.contains(&"migrate"));
            }
        }
    }
}

/// A genome from one row of letters per slot.
fn genome(space: &Space, rows: &[&str]) -> Genome {
    Genome::from_fn(space, rows[0].len() as u32, |step, slot| {
        Decision::from_letter(rows[slot].as_bytes()[step].into()).unwrap()
    })
}

/// How often an operator changes a mixed genome.
fn share_changed(apply: impl Fn(&Space, &mut Genome, &mut Stream)) -> f64 {
    let space = Space::new(Arc::new(Layout::pixart(2).unwrap()), &[8, 5], true);
    let before = genome(&space, &["CRCRCRFF", "CCRRRCRF", "CFFFCRRR", "CRCCCRRC", "CCCCRRCC", "CRRCRRCR"]);
    let changed = (0..200).filter(|&i| {
        let mut after = before.clone();
        apply(&space, &mut after, &mut Stream::new(1, "test", i));
        after != before
    });
    changed.count() as f64 / 200.0
}

#[test]
fn every_operator_usually_changes_the_genome() {
    for operator in &MUTATIONS {
        let share = share_changed(|space, genome, stream| (operator.apply)(space, genome, stream));
        assert!(share > 0.4, "{} changes {share}", operator.name);
    }
    for operator in &CROSSOVERS {
        let share = share_changed(|space, genome, stream| {
            let other = Genome::from_fn(space, genome.steps() as u32, |_, _| Decision::Compute);
            (operator.apply)(space, genome, &other, stream);
        });
        assert!(share > 0.4, "{} changes {share}", operator.name);
    }
}

#[test]
fn a_shift_keeps_the_number_of_computed_steps_of_every_slot() {
    let space = Space::new(Arc::new(Layout::pixart(2).unwrap()), &[8], false);
    for index in 0..100 {
        let before = any_density(&space, &mut Stream::new(1, "genome", index));
        let mut after = before.clone();
        mutation::shift(&space, &mut after, &mut Stream::new(1, "shift", index));
        for slot in 0..before.slots() {
            let count = |g: &Genome| (1..8).filter(|&step| g.computes(step, slot)).count();
            assert_eq!(count(&before), count(&after));
        }
    }
}

#[test]
fn operators_whose_needs_are_not_met_are_not_chosen() {
    let space = Space::new(Arc::new(Layout::pixart(2).unwrap()), &[8], false);
    let mut stream = Stream::new(1, "test", 0);
    for _ in 0..500 {
        let chosen = choose(&MUTATIONS, &space, None, &mut stream).unwrap().name;
        assert!(chosen != "migrate" && chosen != "toggle-forecast");
    }
}
