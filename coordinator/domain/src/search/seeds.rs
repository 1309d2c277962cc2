//! Seeds: imported schedules first, then heuristic families at every step count.
//!
//! The first thirty already span the front: plain runs with fewer steps, then one schedule of each family in turn, each
//! family starting at a different step count. The list is limited to a quarter of the budget in evaluations, but not
//! below [`LEAST`]. Families that need a calibration profile are in `calibrated.rs`. Seeds are made one at a time, on
//! demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use evocache_proto::domain::{Decision, GuidanceDecision, Profile, Schedule, ScheduleId, SearchSpec, Strategy};

use super::calibrated::{self, Changes, SHARES};
use super::genome::{Genome, Space};
use super::random::independent;
use super::resample::resample;
use crate::rng::Stream;

/// The smallest limit on the number of heuristic seeds.
const LEAST: usize = 24;

/// Intervals of n: everything is computed every n-th step; 0 means step 0 only.
const INTERVALS: [usize; 6] = [3, 0, 2, 5, 4, 6];

/// One kind of component computed every a-th step, all others every b-th.
const PAIRS: [(usize, usize); 6] = [(2, 4), (4, 2), (1, 3), (3, 1), (2, 6), (6, 2)];

/// Numbers of computed and of cached steps of a cycle. Each slot starts it one step after the slot before.
const STAGGERS: [(usize, usize); 6] = [(1, 1), (1, 2), (2, 1), (3, 1), (1, 3), (7, 1)];

/// Shares of steps that evenly spaced masks compute.
const EVEN: [f64; 6] = [0.4, 0.3, 0.5, 0.25, 0.35, 0.6];

/// Gates as shares of the run, each with the interval used before or after it.
const GATES: [(f64, usize); 4] = [(0.5, 2), (0.25, 3), (0.75, 2), (0.5, 4)];

/// Step masks of cache-dit's presets for 20 steps, 1 = computed: slow, medium, fast, ultra.
const MASKS: [&str; 4] =
    ["11111101100011000101", "11111101000000000001", "11111111011100111001", "11110000000000000001"];

/// The shares of the run after which a seed leaves out the unconditional pass.
const CUTS: [f64; 3] = [0.5, 0.3, 0.75];
/// The intervals of computed steps of such a seed.
const CUT_INTERVALS: [usize; 3] = [1, 2, 3];
/// Number of steps that a forecasting seed computes first, because an extrapolation needs past outputs.
const WARM_UP: usize = 3;

/// At most this many names are kept for equal imported schedules.
const MOST_NAMES: usize = 16;

/// Density seeds per step count.
const DENSITIES: usize = 8;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seed {
    pub(super) schedule: Arc<Schedule>,
    pub(super) id: ScheduleId,
    pub(super) family: &'static str,
}

/// The seeds of a search without duplicates and without the uncached run. Made on demand: there may be thousands, and
/// making all at once would take long.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seeds {
    spec: Arc<SearchSpec>,
    profile: Option<Arc<Profile>>,
    /// The profile's changes, by step count; `None` if they cannot be used.
    changes: BTreeMap<u32, Option<Changes>>,
    imported: Range<usize>,
    names: Arc<ImportedNames>,
    /// Remaining indices into the list of step counts.
    plain: Range<usize>,
    families: Vec<Family>,
    /// Index of the family whose turn is next.
    turn: usize,
    seen: BTreeSet<ScheduleId>,
    given: usize,
    /// Number of imported seeds; set after the last one.
    given_imported: Option<usize>,
}

/// The names of imported schedules, by the id of the schedule resampled to the search's step counts.
pub type ImportedNames = BTreeMap<ScheduleId, Vec<String>>;

/// A rule with its remaining variants (step count and number), in order.
#[derive(Debug, Clone, PartialEq)]
struct Family {
    name: &'static str,
    rule: Rule,
    variants: VecDeque<(u32, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Smooth,
    Path,
    Interval,
    Even,
    Staggered,
    Pair,
    Depth,
    Gate,
    Mask,
    Density,
    Forecast,
    Cut,
}

impl Seeds {
    pub(super) fn new(
        spec: &Arc<SearchSpec>,
        space: &Space,
        baseline: ScheduleId,
        heuristics: bool,
        profile: Option<Arc<Profile>>,
    ) -> Self {
        let heuristic = match spec.algorithm.strategy {
            Strategy::SteadyState | Strategy::Nsga2 => heuristics && spec.algorithm.seeds,
            Strategy::Imported => false,
        };
        Self {
            plain: 0..if heuristic { space.steps().len() } else { 0 },
            families: if heuristic { families(space, profile.is_some()) } else { vec![] },
            spec: spec.clone(),
            profile,
            changes: BTreeMap::new(),
            imported: 0..spec.imported.len(),
            names: Arc::default(),
            turn: 0,
            seen: BTreeSet::from([baseline]),
            given: 0,
            given_imported: None,
        }
    }

    /// The next seed.
    pub(super) fn next(&mut self, space: &Space) -> Option<Seed> {
        while let Some(i) = self.imported.next() {
            let imported = &self.spec.imported[i];
            let Some(schedule) = nearest(space, &imported.schedule).to_schedule(space) else { continue };
            let names = Arc::make_mut(&mut self.names).entry(schedule.id()).or_default();
            if names.len() < MOST_NAMES {
                names.push(imported.name.clone());
            }
            if let Some(seed) = self.give("imported", schedule) {
                return Some(seed);
            }
        }
        let quarter = self.spec.budget.evaluations.map(|n| usize::try_from(n / 4).unwrap_or(usize::MAX));
        let imported = *self.given_imported.get_or_insert(self.given);
        let most = imported.saturating_add(quarter.unwrap_or(usize::MAX).max(LEAST));
        while let Some(i) = self.plain.next() {
            let plain = interval(space, space.steps()[i], 1);
            if let Some(seed) = self.give_genome(space, "fewer-steps", &plain) {
                return Some(seed);
            }
        }
        while self.given < most && self.families.iter().any(|family| !family.variants.is_empty()) {
            let turn = self.turn;
            self.turn = (turn + 1) % self.families.len();
            // A duplicate does not use up the family's turn.
            while let Some((steps, variant)) = self.families[turn].variants.pop_front() {
                let Family { name, rule, .. } = self.families[turn];
                let genome = self.make(space, rule, steps, variant);
                if let Some(seed) = self.give_genome(space, name, &genome) {
                    return Some(seed);
                }
            }
        }
        None
    }

    /// Applies a new budget, which may allow more seeds.
    pub(super) fn extend(&mut self, spec: Arc<SearchSpec>) {
        self.spec = spec;
    }

    /// Whether a calibration profile is known.
    pub(super) fn are_profiled(&self) -> bool {
        self.profile.is_some()
    }

    /// The names of the imported schedules so far.
    pub(super) fn names(&self) -> &Arc<ImportedNames> {
        &self.names
    }

    fn give_genome(&mut self, space: &Space, family: &'static str, genome: &Genome) -> Option<Seed> {
        self.give(family, genome.to_schedule(space)?)
    }

    /// A seed with this schedule, if that is new.
    fn give(&mut self, family: &'static str, schedule: Schedule) -> Option<Seed> {
        let id = schedule.id();
        let new = self.seen.insert(id);
        self.given += usize::from(new);
        new.then(|| Seed { schedule: Arc::new(schedule), id, family })
    }

    fn make(&mut self, space: &Space, rule: Rule, steps: u32, i: usize) -> Genome {
        match rule {
            Rule::Smooth => self.calibrated(space, steps, |changes| calibrated::smooth(space, changes, SHARES[i])),
            Rule::Path => self.calibrated(space, steps, |changes| {
                calibrated::path(space, changes, SHARES[i / 2], i.is_multiple_of(2))
            }),
            Rule::Interval => interval(space, steps, INTERVALS[i]),
            Rule::Even => even(space, steps, EVEN[i]),
            Rule::Staggered => staggered(space, steps, STAGGERS[i]),
            Rule::Pair => pair(space, steps, i),
            Rule::Depth => depth(space, steps, i),
            Rule::Gate => gate(space, steps, i),
            Rule::Mask => mask(space, steps, MASKS[i]),
            Rule::Density => density(space, steps, i, self.spec.seed),
            Rule::Forecast => forecast(space, steps, INTERVALS[i]),
            Rule::Cut => cut(space, steps, CUTS[i / CUT_INTERVALS.len()], CUT_INTERVALS[i % CUT_INTERVALS.len()]),
        }
    }

    /// A seed made from the profile. Without usable changes, the plain run, which is a duplicate and so skipped.
    fn calibrated(&mut self, space: &Space, steps: u32, make: impl FnOnce(&Changes) -> Genome) -> Genome {
        let profile = self.profile.as_ref();
        let changes = self.changes.entry(steps).or_insert_with(|| Changes::new(space, profile?, steps));
        changes.as_ref().map_or_else(|| interval(space, steps, 1), make)
    }
}

/// An imported schedule, resampled to the nearest step count of the search.
fn nearest(space: &Space, schedule: &Schedule) -> Genome {
    let distance = |steps: &&u32| (f64::from(**steps) / f64::from(schedule.steps())).ln().abs();
    let steps = space.steps().iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).copied();
    resample(space, &Genome::of(schedule), steps.unwrap_or(schedule.steps()))
}

/// The families in order. Those made from a profile come first: a measurement of the model itself is better than a
/// rule.
fn families(space: &Space, profiled: bool) -> Vec<Family> {
    let measured = |variants: usize| if profiled { variants } else { 0 };
    let blocks = if space.blocks() > 1 { GATES.len() } else { 0 };
    let kinds = if space.components() > 1 { space.components() } else { 0 };
    let forecasts = if space.forecast() { INTERVALS.len() } else { 0 };
    let cuts = if space.guidance() { CUTS.len() * CUT_INTERVALS.len() } else { 0 };
    let rows = [
        ("smooth", Rule::Smooth, 0, measured(SHARES.len())),
        ("path", Rule::Path, 1, measured(2 * SHARES.len())),
        ("fora", Rule::Interval, 0, INTERVALS.len()),
        ("even", Rule::Even, 1, EVEN.len()),
        ("staggered", Rule::Staggered, 0, STAGGERS.len()),
        ("component-intervals", Rule::Pair, 1, PAIRS.len() * kinds),
        ("depth", Rule::Depth, 1, blocks),
        ("gate", Rule::Gate, 2, GATES.len() * kinds),
        ("step-mask", Rule::Mask, 3, MASKS.len()),
        ("density", Rule::Density, 2, DENSITIES),
        ("forecast", Rule::Forecast, 3, forecasts),
        ("guidance-cut", Rule::Cut, 0, cuts),
    ];
    let family = |(name, rule, start, variants)| Family { name, rule, variants: diagonal(space, start, variants) };
    rows.map(family).into()
}

/// `variants` of a family at each step count, in diagonal order: the first variant at one step count, then the second
/// at the same and the first at the next smaller one, and so on. Families start at different step counts, so a round
/// mixes them.
fn diagonal(space: &Space, start: usize, variants: usize) -> VecDeque<(u32, usize)> {
    let counts = space.steps().len();
    let mut order: Vec<(usize, usize)> = (0..variants).flat_map(|i| (0..counts).map(move |j| (i, j))).collect();
    order.sort_by_key(|&(i, j)| (i + j, j));
    order.into_iter().map(|(i, j)| (space.steps()[(start + j) % counts], i)).collect()
}

/// Whether `step` is a multiple of `every`; if `every` is 0, whether `step` is 0.
fn on(step: usize, every: usize) -> bool {
    step.is_multiple_of(every)
}

/// FORA: everything is computed at every n-th step. An n of 1 is the plain run.
fn interval(space: &Space, steps: u32, every: usize) -> Genome {
    Genome::from_fn(space, steps, |step, _| if on(step, every) { Decision::Compute } else { Decision::Reuse })
}

/// Everything is computed at evenly spaced steps. The last step is among them because its output is visible in the
/// picture.
fn even(space: &Space, steps: u32, share: f64) -> Genome {
    let last = steps.saturating_sub(1) as usize;
    let gaps = ((share * f64::from(steps)).round() as usize).saturating_sub(1).clamp(1, last.max(1));
    let computed: BTreeSet<usize> = (0..=gaps).map(|i| (2 * i * last + gaps) / (2 * gaps)).collect();
    Genome::from_fn(space, steps, |step, _| if computed.contains(&step) { Decision::Compute } else { Decision::Reuse })
}

/// Every slot follows the same cycle, one step after the slot before it, so that no step reuses everything.
fn staggered(space: &Space, steps: u32, (computed, cached): (usize, usize)) -> Genome {
    let cycle = computed + cached;
    Genome::from_fn(space, steps, |step, slot| {
        let on = step == 0 || (step + cycle - slot % cycle) % cycle < computed;
        if on { Decision::Compute } else { Decision::Reuse }
    })
}

/// One kind of component has its own interval. Variants iterate over the kinds first, then over the pairs of intervals.
fn pair(space: &Space, steps: u32, i: usize) -> Genome {
    let (component, (own, others)) = (i % space.components(), PAIRS[i / space.components()]);
    Genome::from_fn(space, steps, |step, slot| {
        let every = if space.component_of(slot) == component { own } else { others };
        if on(step, every) { Decision::Compute } else { Decision::Reuse }
    })
}

/// As T-GATE: one kind of component is computed up to the gate and then reused; the kind before it is computed at the
/// first two steps, then at an interval up to the gate, and always after it; all others always. Variants iterate over
/// the kinds first, then over the gates.
fn gate(space: &Space, steps: u32, i: usize) -> Genome {
    let (kinds, (share, every)) = (space.components(), GATES[i / space.components()]);
    let (gated, paced) = (i % kinds, (i + kinds - 1) % kinds);
    let until = (f64::from(steps) * share) as usize;
    Genome::from_fn(space, steps, |step, slot| {
        let computes = match space.component_of(slot) {
            kind if kind == gated => step < until,
            kind if kind == paced => step < 2 || step >= until || on(step, every),
            _ => true,
        };
        if computes { Decision::Compute } else { Decision::Reuse }
    })
}

/// As Δ-DiT: the rear half of the blocks is computed only at an interval up to the gate, and the front half after it.
fn depth(space: &Space, steps: u32, i: usize) -> Genome {
    let (share, every) = GATES[i];
    let until = (f64::from(steps) * share) as usize;
    Genome::from_fn(space, steps, |step, slot| {
        let rear = 2 * space.block_of(slot) >= space.blocks();
        if rear != (step < until) || on(step, every) { Decision::Compute } else { Decision::Reuse }
    })
}

/// A mask over whole steps by relative time; the first block always runs.
fn mask(space: &Space, steps: u32, mask: &str) -> Genome {
    let decide = |step: usize, slot| {
        let computes = mask.as_bytes().get(step) == Some(&b'1') || space.block_of(slot) == 0;
        if computes { Decision::Compute } else { Decision::Reuse }
    };
    resample(space, &Genome::from_fn(space, 20, decide), steps)
}

/// As guidance in the first part of the run only (Castillo et al., arXiv 2312.12487), with every `every`-th step computed.
fn cut(space: &Space, steps: u32, share: f64, every: usize) -> Genome {
    let mut genome = interval(space, steps, every);
    let first = (share * f64::from(steps)).round().max(1.0) as usize;
    (first..genome.steps()).for_each(|step| genome.set_guidance(step, GuidanceDecision::Conditional));
    genome
}

/// As TaylorSeer: the first three steps and then every n-th are computed, the rest are forecast.
fn forecast(space: &Space, steps: u32, every: usize) -> Genome {
    let computes = |step: usize| step < WARM_UP || on(step, every);
    Genome::from_fn(space, steps, |step, _| if computes(step) { Decision::Compute } else { Decision::Forecast })
}

/// A random schedule with a share computed that depends on the variant: 1/2, 1/4, 3/4, 1/8, … Even variants give each
/// slot evenly spaced steps with random phase and density; odd ones draw each decision, and compute early steps more
/// often.
fn density(space: &Space, steps: u32, i: usize, seed: u64) -> Genome {
    let share = van_der_corput(i + 1);
    let mut stream = Stream::new(seed, "density-seed", (u64::from(steps) << 32) | i as u64);
    if i % 2 == 1 {
        let falling = |u: f64| if share < 0.5 { 2.0 * share * (1.0 - u) } else { 1.0 - 2.0 * (1.0 - share) * u };
        return independent(space, steps, &mut stream, falling);
    }
    let cached = space.cached(&mut stream);
    let rows: Vec<(f64, f64)> = (0..space.slots()).map(|_| (share * (0.5 + stream.unit()), stream.unit())).collect();
    Genome::from_fn(space, steps, |step, slot| {
        let (pace, phase) = rows[slot];
        let until = |step: usize| (step as f64 * pace + phase).floor();
        if step == 0 || until(step) > until(step - 1) { Decision::Compute } else { cached }
    })
}

/// The n-th number of the base-2 van der Corput sequence: the bits of n, mirrored at the binary point.
fn van_der_corput(n: usize) -> f64 {
    (n as u64).reverse_bits() as f64 / 2f64.powi(64)
}

#[cfg(test)]
#[path = "seeds_tests.rs"]
mod tests;
