//! The breeder: the state of a search and its queries.
//!
//! Results are taken in `results.rs`, candidates proposed in `proposer.rs`, and the planner is connected in
//! `planning.rs`.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Layout, Profile, Schedule, ScheduleError, ScheduleId, SearchSpec, Strategy};

use super::Parts;
use super::credit::{Credit, OperatorShare};
use super::error_models::Planner;
use super::genome::Space;
use super::knowledge::Knowledge;
use super::ledger::Ledger;
use super::nsga2::Generations;
use super::planner_link::PlannerLink;
use super::repeats::Repeats;
use super::rungs::Rungs;
use super::seeds::{ImportedNames, Seed, Seeds};
use super::variation::Variation;
use crate::archive::{Archive, Member};
use crate::estimate::Estimate;
use crate::objective::Objectives;

/// Why a breeder cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BreederError {
    /// An imported schedule has another layout than the workers.
    #[error("imported schedule '{name}' is for layout {found}, the workers' is {layout}")]
    ImportedLayout {
        /// The schedule's name.
        name: String,
        /// Its layout.
        found: String,
        /// The search's layout.
        layout: String,
    },
    /// A step count that no schedule can have.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

/// The uncached schedule, if the search fits the layout.
pub(super) fn baseline(spec: &SearchSpec, layout: &Arc<Layout>) -> Result<Arc<Schedule>, BreederError> {
    if let Some(imported) = spec.imported.first().filter(|i| i.schedule.layout() != layout) {
        return Err(BreederError::ImportedLayout {
            name: imported.name.clone(),
            found: imported.schedule.layout().to_string(),
            layout: layout.to_string(),
        });
    }
    Ok(Arc::new(Schedule::all_compute(layout.clone(), spec.sampling.baseline_steps())?))
}

/// The state of one search.
///
/// The engine calls [`record`](Self::record), [`tell`](Self::tell) and [`fail`](Self::fail) when it applies a fact,
/// live and in replay, and [`ask`](Self::ask) when it decides. Equal facts in equal order make equal breeders.
#[derive(Debug, Clone, PartialEq)]
pub struct Breeder {
    pub(super) spec: Arc<SearchSpec>,
    pub(super) space: Space,
    pub(super) parts: Parts,
    pub(super) baseline: Arc<Schedule>,
    baseline_id: ScheduleId,
    seeds: Seeds,
    /// The next seed that is new.
    pub(super) next_seed: Option<Seed>,
    pub(super) ledger: Ledger,
    pub(super) repeats: Repeats,
    pub(super) rungs: Rungs,
    pub(super) knowledge: Knowledge,
    pub(super) credit: Credit,
    pub(super) variation: Variation,
    pub(super) generations: Option<Generations>,
    pub(super) planner_link: Option<PlannerLink>,
}

impl Breeder {
    /// A search without candidates. `layout` is that of the first worker.
    ///
    /// # Errors
    ///
    /// If an imported schedule has another layout, or a step count is out of range.
    pub fn new(spec: Arc<SearchSpec>, layout: Arc<Layout>) -> Result<Self, BreederError> {
        Self::with_parts(spec, layout, Parts::default())
    }

    /// A search with some parts disabled, for benchmarks.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn with_parts(spec: Arc<SearchSpec>, layout: Arc<Layout>, parts: Parts) -> Result<Self, BreederError> {
        let baseline = baseline(&spec, &layout)?;
        let space = Space::new(layout, &spec.sampling.steps, spec.forecast).with_guidance(spec.guidance_decisions);
        let baseline_id = baseline.id();
        let strategy = spec.algorithm.strategy;
        let size = spec.algorithm.population as usize;
        let mut seeds = Seeds::new(&spec, &space, baseline_id, parts.search, None);
        let models = parts.planning && parts.search && strategy == Strategy::SteadyState;
        Ok(Self {
            next_seed: seeds.next(&space),
            seeds,
            ledger: Ledger::new(spec.prompts.len()),
            repeats: Repeats::default(),
            rungs: Rungs::new(&spec.algorithm.rungs, spec.prompts.len()),
            knowledge: Knowledge::new(&spec, &space),
            credit: Credit::default(),
            variation: Variation::new(spec.algorithm.crossover, parts.operators),
            generations: (strategy == Strategy::Nsga2).then(|| Generations::new(size)),
            planner_link: Planner::new(&spec, &space).filter(|_| models).and_then(|_| PlannerLink::new(&spec, &space)),
            parts,
            spec,
            space,
            baseline,
            baseline_id,
        })
    }

    /// Applies a new budget as if it had been set from the start: it determines the number of seeds and when the end is
    /// near.
    pub fn extend(&mut self, spec: Arc<SearchSpec>) {
        self.seeds.extend(spec.clone());
        self.spec = spec;
        if self.next_seed.is_none() {
            self.next_seed = self.seeds.next(&self.space);
            self.skip_known_seeds();
        }
        let spent = self.spent();
        if let Some(link) = &mut self.planner_link {
            link.update_closing(spent);
        }
    }

    /// Sets the uncached latency, in microseconds per image, by which latency ratios are multiplied for `latency_us`.
    pub fn set_uncached_latency(&mut self, uncached_us: Option<f64>) {
        self.knowledge.set_uncached_latency(uncached_us);
    }

    /// Restarts the list of seeds, including those that need a profile if one is given.
    pub(super) fn reseed(&mut self, profile: Option<Arc<Profile>>) {
        self.seeds = Seeds::new(&self.spec, &self.space, self.baseline_id, self.parts.search, profile);
        self.next_seed = self.seeds.next(&self.space);
        self.skip_known_seeds();
    }

    pub(super) fn skip_known_seeds(&mut self) {
        while self.next_seed.as_ref().is_some_and(|seed| !self.is_new(&seed.id)) {
            self.next_seed = self.seeds.next(&self.space);
        }
    }

    pub(super) fn is_new(&self, id: &ScheduleId) -> bool {
        id != &self.baseline_id && self.ledger.find(id).is_none()
    }

    /// The share of the budget that results have used up; 0 if evaluations are not limited.
    pub(super) fn spent(&self) -> f64 {
        self.spec.budget.evaluations.map_or(0.0, |budget| self.ledger.share_of(budget))
    }

    /// The layout of every schedule of the search.
    pub fn layout(&self) -> &Arc<Layout> {
        self.space.layout()
    }

    /// The objectives of the search.
    pub fn objectives(&self) -> &Objectives {
        self.knowledge.objectives()
    }

    /// The schedule of a recorded candidate.
    pub fn schedule(&self, index: CandidateId) -> Option<&Arc<Schedule>> {
        self.ledger.get(index).map(|c| &c.schedule)
    }

    /// The candidate with this schedule, if it was recorded.
    pub fn find(&self, schedule: &ScheduleId) -> Option<CandidateId> {
        self.ledger.find(schedule)
    }

    /// The non-dominated evaluations; while none keeps every bound, those that violate the bounds least.
    pub fn front(&self) -> &Archive {
        self.knowledge.archive()
    }

    /// The current parents: the best `algorithm.population` measured candidates, front by front.
    pub fn population(&self) -> impl Iterator<Item = &Member> {
        self.knowledge.population().members()
    }

    /// The hypervolume of the front, in losses with the reference point 1.
    pub fn hypervolume(&self) -> f64 {
        self.front().hypervolume()
    }

    /// The hypervolume of the seeds alone; the search added the rest.
    pub fn seeds_hypervolume(&self) -> f64 {
        self.knowledge.seed_archive().hypervolume()
    }

    /// The names of the imported schedules.
    pub fn imported(&self) -> &Arc<ImportedNames> {
        self.seeds.names()
    }

    /// Number of results and added hypervolume of each operator, by name.
    pub fn operator_shares(&self) -> Vec<OperatorShare> {
        self.credit.shares()
    }

    /// Each error model's rank correlation on new results of about equal cost; `None` if there are too few. A model
    /// with a low correlation plans nothing.
    pub fn model_correlations(&self) -> Vec<(&'static str, Option<f64>)> {
        self.planner_link.as_ref().map_or_else(Vec::new, |link| link.plan().correlations.clone())
    }

    /// The estimate of a candidate's latency ratio from all measurements of its schedule.
    pub fn latency_ratio(&self, index: CandidateId) -> Option<Estimate> {
        self.knowledge.estimate(self.ledger.get(index)?.first)
    }

    /// The relative standard deviation of one measured latency ratio; `None` before the first repeat.
    pub fn latency_noise(&self) -> Option<f64> {
        self.knowledge.latencies().noise()
    }

    /// One candidate per schedule measured on all prompts (no repeats), with its estimated latency ratio.
    pub fn standing(&self) -> impl Iterator<Item = (CandidateId, f64)> {
        self.knowledge.latency_ratios()
    }

    /// The largest estimated speed-up at [`REPORTED_QUALITY_RATIO`](super::REPORTED_QUALITY_RATIO) or more.
    pub fn best_speedup(&self) -> Option<f64> {
        self.knowledge.speedups().all
    }

    /// The largest estimated speed-up of the seeds alone.
    pub fn seeds_best_speedup(&self) -> Option<f64> {
        self.knowledge.speedups().seeds
    }

    /// Number of consecutive evaluations without growth of the hypervolume; 0 unless the budget limits it.
    pub fn stagnant(&self) -> u64 {
        self.knowledge.stagnant()
    }

    /// Whether a calibration profile is known.
    pub fn is_profiled(&self) -> bool {
        self.seeds.are_profiled()
    }
}

#[cfg(test)]
#[path = "breeder_noise_tests.rs"]
mod noise_tests;

#[cfg(test)]
#[path = "breeder_tests.rs"]
mod tests;
