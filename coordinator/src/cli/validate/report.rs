//! What the held-out prompts say: which schedules of the front held, and how it compares with heuristics. Pure.
//!
//! A schedule that is chosen by what it shows on the held-out prompts looks better there than it is, a little, as it
//! does on the prompts of the search. So there are two choices: one by what the search had measured, which is fair, and
//! one by the held-out prompts, which is the best that the front could do.

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::{CandidateId, Direction, Level, Objective, ScheduleId, builtin_direction};

use super::figures::{Figures, difference};
use super::plan;
use crate::client::{Evaluation, Search};

/// Families of seeds that are no heuristics of caching: plain runs, and what comes from elsewhere.
pub(super) const FEWER_STEPS: &str = "fewer-steps";
const IMPORTED: &str = "imported";

/// A difference of quality that chance makes more rarely than this is one.
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
    /// The evaluation of each schedule that rests on most measurements, without those on a part of the prompts.
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
    /// Where it comes from.
    pub(super) origin: String,
    /// The family of heuristics with which its line began.
    pub(super) family: String,
    /// Its content id.
    pub(super) schedule: ScheduleId,
    /// Its steps.
    pub(super) steps: u32,
    /// The share of module runs that come from the cache.
    pub(super) hit_rate: f64,
    /// On the prompts of the search; absent if it was never measured on all of them.
    pub(super) seen: Option<Figures>,
    /// On the held-out prompts.
    pub(super) held_out: Figures,
    /// All objectives but quality on the held-out prompts, so that less is better.
    costs: Vec<f64>,
}

/// Whether a schedule of the front is one on the held-out prompts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is.
    Held,
    /// It no longer keeps the share of quality that it kept.
    Below,
    /// This member of the front is nowhere worse, and its quality is surely better.
    Beaten(CandidateId),
}

/// All that is told.
#[derive(Debug)]
pub(super) struct Report {
    /// The validated search, and the one that validates.
    pub(super) searches: [String; 2],
    /// What quality is.
    pub(super) quality: String,
    /// The share of the uncached quality to keep.
    pub(super) threshold: f64,
    /// What else to keep: the bounds of the search's other objectives of quality.
    pub(super) floors: Vec<Objective>,
    /// How many prompts are held out.
    pub(super) prompts: usize,
    /// The front, fastest first as the search had measured it.
    pub(super) front: Vec<(Row, Verdict)>,
    /// The heuristic schedules, in their order in the search.
    pub(super) seeds: Vec<Row>,
    /// Candidates that were not measured on the held-out prompts.
    pub(super) missing: Vec<CandidateId>,
    /// Step counts of plain runs for which the search does not tell how to sample: on another grid of timesteps, or at
    /// another order, as few steps may keep more.
    pub(super) untold: Vec<u32>,
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
        let untold = plain.filter(|&steps| sampling.grid(steps).is_none()).collect::<BTreeSet<_>>();
        let untold = untold.into_iter().rev().collect();
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
            untold,
        })
    }

    /// How many of the front held.
    pub(super) fn held(&self) -> usize {
        self.front.iter().filter(|(_, verdict)| *verdict == Verdict::Held).count()
    }

    /// The fastest of each kind that keeps enough quality, chosen on this basis.
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

    /// Whether it keeps enough of the uncached quality, and the other floors.
    pub(super) fn keeps(&self, figures: &Figures) -> bool {
        figures.ratio >= self.threshold && self.floors.iter().all(|floor| figures.keeps(floor))
    }

    fn heuristics(&self) -> impl Iterator<Item = &Row> {
        self.seeds.iter().filter(|r| r.hit_rate > 0.0 && is_heuristic(&r.family))
    }
}

/// The objectives of quality beside the first that have a bound.
fn floors(search: &Search, quality: &Objective) -> Vec<Objective> {
    let floor =
        |o: &&Objective| o.bound.is_some() && o.metric != quality.metric && builtin_direction(&o.metric).is_none();
    search.spec.objectives.iter().filter(floor).cloned().collect()
}

/// Whether a family of seeds is a heuristic of caching.
pub(super) fn is_heuristic(family: &str) -> bool {
    family != FEWER_STEPS && family != IMPORTED
}

/// By which prompts a schedule is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    /// Those of the search.
    Seen,
    /// The held-out ones.
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
    /// By which prompts they were chosen.
    pub(super) basis: Basis,
    /// Of the front.
    pub(super) front: Option<&'a Row>,
    /// Of all heuristics of caching.
    pub(super) heuristic: Option<&'a Row>,
    /// Of each family of seeds.
    pub(super) families: Vec<(&'a str, Option<&'a Row>)>,
    /// Of the plain runs with fewer steps.
    pub(super) fewer_steps: Option<&'a Row>,
    /// Of the heuristics whose held-out quality is no worse than that of the front's: the fastest.
    pub(super) as_good_fastest: Option<&'a Row>,
    /// Of the same: the one with the largest share of module runs from the cache.
    pub(super) as_good_most_cached: Option<&'a Row>,
}

impl Comparison<'_> {
    /// How much faster the front's is than a rival on the held-out prompts, and the standard deviation of that.
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
    // The one that beats it most clearly.
    let strongest = front.iter().filter(beats).max_by(|a, b| a.held_out.ratio.total_cmp(&b.held_out.ratio));
    strongest.map_or(Verdict::Held, |other| Verdict::Beaten(other.candidate))
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
