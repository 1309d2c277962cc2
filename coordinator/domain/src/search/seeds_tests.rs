//! Tests of the seeds: their number, order and contents.

use std::collections::BTreeMap;

use evocache_proto::domain::Layout;

use super::*;
use evocache_testkit::landscape::{draft, spec};

fn all(spec: &Arc<SearchSpec>, space: &Space, baseline: ScheduleId, profile: Option<&Profile>) -> Vec<Seed> {
    let mut seeds = Seeds::new(spec, space, baseline, true, profile.cloned().map(Arc::new));
    std::iter::from_fn(|| seeds.next(space)).collect()
}

fn seeds(steps: &[u32], evaluations: u64, forecast: bool) -> Vec<Seed> {
    let mut draft = draft(Strategy::SteadyState, steps, evaluations, 1);
    draft.forecast = forecast;
    let layout = Arc::new(Layout::pixart(4).unwrap());
    let baseline = Schedule::all_compute(layout.clone(), steps[0]).unwrap();
    all(&spec(draft), &Space::new(layout, steps, forecast), baseline.id(), None)
}

#[test]
fn seeds_take_a_quarter_of_the_budget_but_at_least_two_dozen() {
    assert_eq!(seeds(&[20, 16, 12, 10, 8], 40, false).len(), LEAST);
    assert_eq!(seeds(&[20, 16, 12, 10, 8], 200, false).len(), 50);
    let most = seeds(&[20, 16, 12, 10, 8], 40_000, true).len();
    assert!((200..400).contains(&most), "{most}");
}

#[test]
fn the_first_thirty_contain_every_family_and_step_count_and_span_the_costs() {
    let seeds = seeds(&[20, 16, 12, 8], 160, true);
    let mut families = BTreeMap::<&str, usize>::new();
    let mut counts = BTreeMap::<u32, usize>::new();
    for seed in &seeds[..30] {
        *families.entry(seed.family).or_default() += 1;
        *counts.entry(seed.schedule.steps()).or_default() += 1;
    }
    let names: Vec<&str> = families.keys().copied().collect();
    assert_eq!(
        names,
        [
            "component-intervals",
            "density",
            "depth",
            "even",
            "fewer-steps",
            "fora",
            "forecast",
            "gate",
            "staggered",
            "step-mask",
        ]
    );
    assert!(counts.len() == 4 && counts.values().all(|&n| n >= 2), "{counts:?}");
    let costs: Vec<f64> = seeds[..30].iter().map(|s| s.schedule.computed() as f64 / (20.0 * 12.0)).collect();
    for (low, high) in [(0.0, 0.1), (0.1, 0.25), (0.25, 0.4), (0.4, 0.6), (0.6, 1.0)] {
        assert!(costs.iter().any(|c| (low..high).contains(c)), "no seed costs {low} to {high}: {costs:?}");
    }
}

#[test]
fn seeds_are_distinct_and_never_the_baseline() {
    let seeds = seeds(&[6, 3, 2], 10_000, true);
    let ids: BTreeSet<ScheduleId> = seeds.iter().map(|s| s.id).collect();
    assert_eq!(ids.len(), seeds.len());
    assert!(seeds.iter().all(|s| s.schedule.id() == s.id && !(s.schedule.steps() == 6 && s.schedule.computed() == 72)));
}

#[test]
fn families_follow_their_rules() {
    let layout = Arc::new(Layout::pixart(2).unwrap());
    let space = Space::new(layout, &[8], true);
    let row = |genome: &Genome, slot| (0..8).map(|step| genome.at(step, slot).letter()).collect::<String>();
    assert_eq!(row(&interval(&space, 8, 3), 0), "CRRCRRCR");
    assert_eq!(row(&interval(&space, 8, 0), 0), "CRRRRRRR");
    assert_eq!(row(&forecast(&space, 8, 4), 5), "CCCFCFFF");
    assert_eq!(row(&even(&space, 8, 0.4), 0), "CRRRCRRC");
    let staggers = staggered(&space, 8, (1, 2));
    assert_eq!([0, 1, 2].map(|slot| row(&staggers, slot)), ["CRRCRRCR", "CCRRCRRC", "CRCRRCRR"]);
    // The second kind is reused in the second half; the first is computed twice, then every second step, then always.
    let gated = gate(&space, 8, 1);
    assert_eq!([3, 4, 5].map(|slot| row(&gated, slot)), ["CCCRCCCC", "CCCCRRRR", "CCCCCCCC"]);
    let halves = depth(&space, 8, 0);
    assert_eq!([row(&halves, 0), row(&halves, 3)], ["CCCCCRCR", "CRCRCCCC"]);
    let masked = mask(&space, 20, MASKS[0]).to_schedule(&space).unwrap();
    let letters = |slot| (0..20).map(|step| masked.decision(step, slot).letter()).collect::<String>();
    assert_eq!([letters(0), letters(3)], ["C".repeat(20), "CCCCCCRCCRRRCCRRRCRC".to_owned()]);
    let mixed = pair(&space, 8, 1);
    assert_eq!([row(&mixed, 0), row(&mixed, 1), row(&mixed, 4)], ["CRRRCRRR", "CRCRCRCR", "CRCRCRCR"]);
}

#[test]
fn density_seeds_have_the_intended_share() {
    let space = Space::new(Arc::new(Layout::pixart(28).unwrap()), &[40], false);
    for i in 0..DENSITIES {
        let schedule = density(&space, 40, i, 1).to_schedule(&space).unwrap();
        let share = 1.0 - schedule.cache_hit_rate();
        let wanted = van_der_corput(i + 1);
        assert!((share - wanted).abs() < 0.12, "variant {i} has {share}, wanted {wanted}");
    }
    assert_eq!([1, 2, 3, 4].map(van_der_corput), [0.5, 0.25, 0.75, 0.125]);
}

/// With the largest layout that a search accepts: one seed is made at a time.
#[test]
fn seeds_of_the_largest_layout_are_made_on_demand() {
    use evocache_proto::domain::{BlockGroup, Component};
    let components = (0..64).map(|i| Component::new(format!("c{i}"))).collect();
    let layout = Arc::new(Layout::new(vec![BlockGroup { name: "block".into(), count: 4, components }]).unwrap());
    let steps: Vec<u32> = (985..=1000).rev().collect();
    let space = Space::new(layout.clone(), &steps, true);
    let spec = spec(draft(Strategy::SteadyState, &steps, 1_000_000, 1));
    let baseline = Schedule::all_compute(layout, 1000).unwrap().id();
    let changes = vec![0.5; 5 * 1000 * space.slots()];
    let profile = Profile::new(1000, 5, changes).unwrap();
    let mut seeds = Seeds::new(&spec, &space, baseline, true, Some(Arc::new(profile)));
    assert_eq!(seeds.seen.len(), 1, "no seed is made yet");
    for made in 1..40 {
        assert!(seeds.next(&space).is_some());
        assert_eq!(seeds.given, made);
    }
    assert!(seeds.changes.values().all(Option::is_none), "the table for this many steps would be too large");
    let waiting: usize = seeds.families.iter().map(|family| family.variants.len()).sum();
    assert!(waiting > 9000, "{waiting} variants remain");
}

#[test]
fn a_search_without_seeds_or_of_imported_schedules_has_no_heuristic_seeds() {
    let layout = Arc::new(Layout::pixart(2).unwrap());
    let space = Space::new(layout.clone(), &[8], false);
    let baseline = Schedule::all_compute(layout, 8).unwrap().id();
    let mut seedless = draft(Strategy::SteadyState, &[8], 100, 1);
    seedless.algorithm.seeds = false;
    assert!(all(&spec(seedless), &space, baseline, None).is_empty());
    assert!(all(&spec(draft(Strategy::Imported, &[8], 100, 1)), &space, baseline, None).is_empty());
}

#[test]
fn a_layout_with_one_kind_of_component_has_no_component_intervals() {
    use evocache_proto::domain::{BlockGroup, Component};
    let group = BlockGroup { name: "block".into(), count: 3, components: vec![Component::new("ff")] };
    let layout = Arc::new(Layout::new(vec![group]).unwrap());
    let space = Space::new(layout.clone(), &[8], false);
    let baseline = Schedule::all_compute(layout, 8).unwrap().id();
    let seeds = all(&spec(draft(Strategy::SteadyState, &[8], 100, 1)), &space, baseline, None);
    assert!(!seeds.is_empty() && seeds.iter().all(|s| s.family != "component-intervals"));
}

/// A hash of the families and schedules of all seeds, in order.
fn digest(seeds: &[Seed]) -> u64 {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for seed in seeds {
        hash.update(seed.family);
        hash.update(seed.id.0);
    }
    u64::from_be_bytes(hash.finalize()[..8].try_into().unwrap())
}

/// Seeds determine a search: equal specifications must give equal seeds in every version.
#[test]
fn the_seeds_of_known_layouts_do_not_change() {
    let of = |layout: Layout, steps: &[u32], evaluations: u64, forecast: bool, profiled: bool| {
        let layout = Arc::new(layout);
        let mut draft = draft(Strategy::SteadyState, steps, evaluations, 7);
        draft.forecast = forecast;
        let half = |step: u32, slot: usize| {
            if (step as usize + slot).is_multiple_of(2) { Decision::Compute } else { Decision::Reuse }
        };
        let imported = Schedule::from_fn(layout.clone(), steps[0] + 3, half).unwrap();
        draft.imported = vec![evocache_proto::domain::Imported { name: "far".into(), schedule: imported }; 2];
        let slots = layout.slots();
        let change = |i: usize| ((i * 37 + i / slots * 11) % 101) as f32 / 100.0;
        let profile = profiled
            .then(|| Profile::new(steps[0], 5, (0..5 * steps[0] as usize * slots).map(change).collect()).unwrap());
        let baseline = Schedule::all_compute(layout.clone(), steps[0]).unwrap();
        let seeds = all(&spec(draft), &Space::new(layout, steps, forecast), baseline.id(), profile.as_ref());
        (seeds.len(), digest(&seeds))
    };
    let found = [
        of(Layout::pixart(28).unwrap(), &[20, 16, 12, 10, 8], 1000, false, false),
        of(Layout::pixart(28).unwrap(), &[20, 16, 12, 10, 8], 100, true, true),
        of(Layout::flux(19, 38).unwrap(), &[50, 28], 4000, true, true),
        of(Layout::pixart(4).unwrap(), &[6, 3, 2, 1], 10_000, true, true),
        of(Layout::flux(1, 1).unwrap(), &[100], 10_000, false, true),
    ];
    assert_eq!(
        found,
        [
            (251, 3_072_416_361_747_486_064),
            (26, 9_089_064_078_040_816_636),
            (224, 2_785_568_627_504_582_574),
            (130, 569_676_709_491_644_780),
            (107, 10_146_321_615_770_393_790),
        ]
    );
}
