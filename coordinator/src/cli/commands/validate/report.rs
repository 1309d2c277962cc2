//! The result of a validation: which schedules of the front held, and how the front compares with heuristics. Pure.
//!
//! A schedule chosen by its figures on the held-out prompts looks slightly better there than it is, as it does on the
//! prompts of the search. So there are two comparisons: by the measurements of the search, which is fair, and by the
//! held-out prompts, which is the best that the front could do.

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::{CandidateId, Direction, Level, Objective, ScheduleId, builtin_direction};

use super::figures::{Figures, difference};
use super::plan;
use crate::client::{Evaluation, Search};

/// The family of plain runs with fewer steps, which is not a caching heuristic.
pub(super) const FEWER_STEPS: &str = "fewer-steps";
/// The family of imported schedules, which is not a caching heuristic either.
const IMPORTED: &str = "imported";

/// A difference in quality counts if chance makes it less often than this.
const SURE: Level = Level::TWO_DEVIATIONS;

/// A search with all its evaluations.
#[derive(Debug)]
pub(super) struct Measured<'a> {
    /// The search.
    pub(super) search: &'a Search,
    /// Its evaluations.
    pub(super) evaluations: &'a [Evaluation],
}

impl<'a> Measured<'a> {
    /// The evaluation with the most measurements of each schedule, of those on all prompts.
    fn by_schedule(&self) -> BTreeMap<ScheduleId, &'a Evaluation> {
        let mut best: BTreeMap<ScheduleId, &Evaluation> = BTreeMap::new();
        for e in self.evaluations.iter().filter(|e| self.search.is_whole(e)) {
            let known = best.entry(e.schedule.id()).or_insert(e);
            if e.measurements() > known.measurements() {
                *known = e;
            }
        }
        best
    }

    fn uncached(&self) -> Option<&'a Evaluation> {
        self.evaluations.iter().find(|e| self.search.is_whole(e) && plan::is_uncached(self.search, e))
    }
}

/// A schedule on both sets of prompts.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The candidate of the validated search.
    pub(super) candidate: CandidateId,
    /// The origin of the schedule.
    pub(super) origin: String,
    /// The family of heuristics from which it descends.
    pub(super) family: String,
    /// Content id of the schedule.
    pub(super) schedule: ScheduleId,
    /// Number of steps.
    pub(super) steps: u32,
    /// Share of module runs that come from the cache.
    pub(super) hit_rate: f64,
    /// Figures on the prompts of the search; `None` if it was never measured on all of them.
    pub(super) seen: Option<Figures>,
    /// Figures on the held-out prompts.
    pub(super) held_out: Figures,
    /// All objectives other than quality on the held-out prompts, signed so that less is better.
    costs: Vec<f64>,
}

/// Whether a schedule of the front holds on the held-out prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It holds.
    Held,
    /// It keeps less than the required share of quality, which it kept on the prompts of the search.
    Below,
    /// This member of the front is nowhere worse, and its quality is significantly better.
    Beaten(CandidateId),
}

/// The result of a validation.
#[derive(Debug)]
pub(super) struct Report {
    /// Ids of the validated search and of the validation.
    pub(super) searches: [String; 2],
    /// The quality metric.
    pub(super) quality: String,
    /// The share of the uncached quality that a schedule must keep.
    pub(super) threshold: f64,
    /// Further requirements: the bounds of the search's other quality objectives.
    pub(super) floors: Vec<Objective>,
    /// Number of held-out prompts.
    pub(super) prompts: usize,
    /// The front, fastest first by the measurements of the search.
    pub(super) front: Vec<(Row, Verdict)>,
    /// The heuristic schedules, in the order of the search.
    pub(super) seeds: Vec<Row>,
    /// Candidates without a measurement on the held-out prompts.
    pub(super) missing: Vec<CandidateId>,
    /// Step counts of plain runs for which the specification gives no sampling grid: another grid of timesteps or another
    /// solver order may keep more with as few steps.
    pub(super) without_grid: Vec<u32>,
}

impl Report {
    /// `None` if the uncached run was not measured on the held-out prompts.
    pub(super) fn new(
        seen: &Measured<'_>,
        front: &[Evaluation],
        held_out: &Measured<'_>,
        threshold: f64,
    ) -> Option<Self> {
        let quality = seen.search.spec.quality()?;
        let uncached = (seen.uncached(), held_out.uncached()?);
        let by_schedule = (seen.by_schedule(), held_out.by_schedule());
        let row = |e: &Evaluation| {
            let schedule = e.schedule.id();
            let again = by_schedule.1.get(&schedule)?;
            let before = by_schedule.0.get(&schedule);
            Some(Row {
                candidate: e.candidate,
                origin: e.origin().to_string(),
                family: e.seed_family.to_string(),
                schedule,
                steps: e.schedule.steps(),
                hit_rate: e.schedule.cache_hit_rate(),
                seen: before.and_then(|before| Figures::new(before, uncached.0, quality)),
                held_out: Figures::new(again, Some(uncached.1), quality)?,
                costs: costs(seen.search, again, &quality.metric),
            })
        };
        let members: Vec<&Evaluation> = plan::front(seen.search, front).collect();
        let seeds: Vec<&Evaluation> = plan::seeds(seen.search, seen.evaluations).collect();
        let rows = |of: &[&Evaluation]| -> Vec<Row> { of.iter().filter_map(|e| row(e)).collect() };
        let (front, seed_rows) = (rows(&members), rows(&seeds));
        let measured: BTreeSet<CandidateId> = front.iter().chain(&seed_rows).map(|r| r.candidate).collect();
        let wanted: BTreeSet<CandidateId> = members.iter().chain(&seeds).map(|e| e.candidate).collect();
        let sampling = &held_out.search.spec.sampling;
        let plain = seed_rows.iter().filter(|r| r.family == FEWER_STEPS).map(|r| r.steps);
        let without_grid = plain.filter(|&steps| sampling.grid(steps).is_none()).collect::<BTreeSet<_>>();
        let without_grid = without_grid.into_iter().rev().collect();
        let verdicts: Vec<Verdict> = front.iter().map(|r| verdict(r, &front, threshold, quality.direction)).collect();
        Some(Self {
            searches: [seen.search.id.to_string(), held_out.search.id.to_string()],
            quality: quality.metric.clone(),
            threshold,
            floors: floors(seen.search, quality),
            prompts: held_out.search.spec.prompts.len(),
            front: front.into_iter().zip(verdicts).collect(),
            seeds: seed_rows,
            missing: wanted.difference(&measured).copied().collect(),
            without_grid,
        })
    }

    /// Number of schedules of the front that held.
    pub(super) fn held(&self) -> usize {
        self.front.iter().filter(|(_, verdict)| *verdict == Verdict::Held).count()
    }

    /// Chooses, on this basis, the fastest of each kind that keeps enough quality.
    pub(super) fn comparison(&self, basis: Basis) -> Comparison<'_> {
        let families: BTreeSet<&str> = self.seeds.iter().map(|r| r.family.as_str()).collect();
        let of_family = |family: &str| self.fastest(self.seeds.iter().filter(|r| r.family == family), basis);
        let front = self.fastest(self.front.iter().map(|(row, _)| row), basis);
        let as_good: Vec<&Row> =
            front.map_or(vec![], |f| self.heuristics().filter(|r| r.held_out.ratio >= f.held_out.ratio).collect());
        let most = |of: fn(&Row) -> f64| as_good.iter().copied().max_by(|a, b| of(a).total_cmp(&of(b)));
        Comparison {
            basis,
            front,
            heuristic: self.fastest(self.heuristics(), basis),
            families: families.into_iter().map(|family| (family, of_family(family))).collect(),
            fewer_steps: of_family(FEWER_STEPS),
            as_good_fastest: most(|row| row.held_out.speedup),
            as_good_most_cached: most(|row| row.hit_rate),
        }
    }

    fn fastest<'a>(&self, rows: impl Iterator<Item = &'a Row>, basis: Basis) -> Option<&'a Row> {
        let speed = |row: &Row| basis.figures(row).filter(|f| self.keeps(f)).map(|f| f.speedup);
        let fit = rows.filter_map(|row| Some((row, speed(row)?)));
        fit.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(row, _)| row)
    }

    /// Whether a schedule keeps enough of the uncached quality and satisfies the other requirements.
    pub(super) fn keeps(&self, figures: &Figures) -> bool {
        figures.ratio >= self.threshold && self.floors.iter().all(|floor| figures.keeps(floor))
    }

    fn heuristics(&self) -> impl Iterator<Item = &Row> {
        self.seeds.iter().filter(|r| r.hit_rate > 0.0 && is_heuristic(&r.family))
    }
}

/// The quality objectives with a bound, other than the first.
fn floors(search: &Search, quality: &Objective) -> Vec<Objective> {
    let floor =
        |o: &&Objective| o.bound.is_some() && o.metric != quality.metric && builtin_direction(&o.metric).is_none();
    search.spec.objectives.iter().filter(floor).cloned().collect()
}

/// Whether a family of seeds is a caching heuristic.
pub(super) fn is_heuristic(family: &str) -> bool {
    family != FEWER_STEPS && family != IMPORTED
}

/// The prompts by whose figures a schedule is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// The prompts of the search.
    Seen,
    /// The held-out prompts.
    HeldOut,
}

impl Basis {
    fn figures(self, row: &Row) -> Option<&Figures> {
        match self {
            Self::Seen => row.seen.as_ref(),
            Self::HeldOut => Some(&row.held_out),
        }
    }
}

/// The fastest of each kind that keeps enough quality.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    /// The prompts by which they were chosen.
    pub(super) basis: Basis,
    /// The fastest of the front.
    pub(super) front: Option<&'a Row>,
    /// The fastest of all caching heuristics.
    pub(super) heuristic: Option<&'a Row>,
    /// The fastest of each family of seeds.
    pub(super) families: Vec<(&'a str, Option<&'a Row>)>,
    /// The fastest plain run with fewer steps.
    pub(super) fewer_steps: Option<&'a Row>,
    /// The fastest heuristic whose held-out quality is no worse than that of `front`.
    pub(super) as_good_fastest: Option<&'a Row>,
    /// The one of those with the largest share of module runs from the cache.
    pub(super) as_good_most_cached: Option<&'a Row>,
}

impl Comparison<'_> {
    /// Speed-up of `front` over a rival on the held-out prompts, and its standard deviation.
    pub(super) fn gain_over(&self, rival: Option<&Row>) -> Option<(f64, f64)> {
        let (ours, theirs) = (&self.front?.held_out, &rival?.held_out);
        let gain = ours.speedup / theirs.speedup;
        Some((gain, gain * ours.deviation.hypot(theirs.deviation)))
    }
}

fn costs(search: &Search, e: &Evaluation, quality: &str) -> Vec<f64> {
    let others = search.spec.objectives.iter().filter(|o| o.metric != quality);
    let value = |metric: &str| e.value(metric).unwrap_or(f64::NAN);
    others
        .map(|o| match o.direction {
            Direction::Minimize => value(&o.metric),
            Direction::Maximize => -value(&o.metric),
        })
        .collect()
}

fn verdict(row: &Row, front: &[Row], threshold: f64, direction: Direction) -> Verdict {
    let kept = |f: &Figures| f.ratio >= threshold;
    if row.seen.as_ref().is_some_and(kept) && !kept(&row.held_out) {
        return Verdict::Below;
    }
    let beats = |other: &&Row| {
        other.candidate != row.candidate
            && other.costs.iter().zip(&row.costs).all(|(theirs, ours)| theirs <= ours)
            && match direction {
                Direction::Maximize => difference(&other.held_out.values, &row.held_out.values),
                Direction::Minimize => difference(&row.held_out.values, &other.held_out.values),
            }
            .is_some_and(|d| d.mean > d.reach(SURE))
    };
    // Reports the one with the highest quality.
    let strongest = front.iter().filter(beats).max_by(|a, b| a.held_out.ratio.total_cmp(&b.held_out.ratio));
    strongest.map_or(Verdict::Held, |other| Verdict::Beaten(other.candidate))
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
