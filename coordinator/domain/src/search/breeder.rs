//! The breeder: what has been proposed and what came back. What to try next is in `ask.rs`, what results add up to in
//! `knowledge.rs`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use evocache_proto::domain::{
    CandidateId, Layout, Measurement, Schedule, ScheduleError, ScheduleId, SearchSpec, Strategy,
};

use super::advice::{Advice, Advised, Lesson};
use super::credit::{Credit, OperatorShare};
use super::disown::{Disowned, Repeats};
use super::genome::Space;
use super::knowledge::Knowledge;
use super::model::Adviser;
use super::nsga2::Generations;
use super::remeasure::UnderWay;
use super::rungs::Rungs;
use super::seeds::{ImportedNames, Seed, Seeds};
use super::variation::Variation;
use super::{Parts, Proposal, Provenance};
use crate::archive::{Archive, Inserted, Member};
use crate::estimate::Estimate;
use crate::objective::{Objectives, ScoreError};

/// Why a search cannot be bred.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BreederError {
    /// An imported schedule is for another model.
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

/// Why a result is not taken. The state stays as it was.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TellError {
    /// The candidate was never recorded.
    #[error("candidate {0} is unknown")]
    Unknown(CandidateId),
    /// The candidate has its result already.
    #[error("candidate {0} is finished")]
    Finished(CandidateId),
    /// The measurement has no score.
    #[error("candidate {0}: {1}")]
    Score(CandidateId, ScoreError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Open,
    Measured,
    Failed,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    pub(super) schedule: Arc<Schedule>,
    /// The first candidate with this schedule: itself, but for repeated measurements and promotions.
    first: CandidateId,
    pub(super) provenance: Arc<Provenance>,
    /// Prompts to evaluate; 0: all.
    prompts: u32,
    /// The candidate that this measures again.
    pub(super) again: Option<CandidateId>,
    status: Status,
}

/// The uncached run's schedule, if the search can be bred for this layout.
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

/// The state of one search's breeding.
///
/// The engine calls [`record`](Self::record), [`tell`](Self::tell) and [`fail`](Self::fail) when it applies a fact,
/// live and in replay, and [`ask`](Self::ask) when it decides. Equal facts in equal order make equal breeders.
#[derive(Debug, Clone, PartialEq)]
pub struct Breeder {
    pub(super) spec: Arc<SearchSpec>,
    pub(super) space: Space,
    pub(super) variation: Variation,
    pub(super) baseline: Arc<Schedule>,
    pub(super) baseline_id: ScheduleId,
    seeds: Seeds,
    /// The next seed; none before it is new.
    pub(super) next_seed: Option<Seed>,
    profiled: bool,
    pub(super) candidates: BTreeMap<CandidateId, Candidate>,
    known: HashMap<ScheduleId, CandidateId>,
    /// Candidates without a result.
    open: usize,
    /// Prompts of all candidates that did not fail.
    pub(super) prompts: u64,
    /// Prompts of all candidates with a result.
    told: u64,
    pub(super) knowledge: Knowledge,
    pub(super) under_way: UnderWay,
    pub(super) disowned: Disowned,
    pub(super) rungs: Rungs,
    pub(super) generations: Option<Generations>,
    pub(super) credit: Credit,
    pub(super) parts: Parts,
    pub(super) advised: Option<Advised>,
}

impl Breeder {
    /// A search before its first candidate. `layout` is what the first worker declared.
    pub fn new(spec: Arc<SearchSpec>, layout: Arc<Layout>) -> Result<Self, BreederError> {
        Self::with_parts(spec, layout, Parts::default())
    }

    /// The same with parts left out, to see what they are worth.
    pub fn with_parts(spec: Arc<SearchSpec>, layout: Arc<Layout>, parts: Parts) -> Result<Self, BreederError> {
        let baseline = baseline(&spec, &layout)?;
        let space = Space::new(layout, &spec.sampling.steps, spec.forecast);
        let baseline_id = baseline.id();
        let strategy = spec.algorithm.strategy;
        let size = spec.algorithm.population as usize;
        let mut seeds = Seeds::new(&spec, &space, baseline_id, None);
        Ok(Self {
            variation: Variation::new(spec.algorithm.crossover, parts.operators),
            advised: Adviser::new(&spec, &space)
                .filter(|_| parts.model && strategy == Strategy::SteadyState)
                .and_then(|_| Advised::new(&spec, &space)),
            knowledge: Knowledge::new(&spec, &space),
            rungs: Rungs::new(&spec.algorithm.rungs, spec.prompts.len()),
            generations: (strategy == Strategy::Nsga2).then(|| Generations::new(size)),
            next_seed: seeds.next(&space),
            seeds,
            credit: Credit::default(),
            parts,
            spec,
            space,
            baseline,
            baseline_id,
            profiled: false,
            candidates: BTreeMap::new(),
            known: HashMap::new(),
            open: 0,
            prompts: 0,
            told: 0,
            under_way: UnderWay::default(),
            disowned: Disowned::default(),
        })
    }

    /// The candidate exists from now on, as proposed. A repeat changes nothing.
    pub fn record(&mut self, index: CandidateId, proposal: &Proposal) {
        if self.candidates.contains_key(&index) {
            return;
        }
        let first = *self.known.entry(proposal.schedule.id()).or_insert(index);
        let parent = proposal.provenance.parents.first().copied();
        let again = parent.filter(|_| proposal.provenance.operator == REMEASURE);
        if let Some(again) = again {
            self.under_way.begin(again);
        }
        if let Some(parent) = parent.filter(|_| proposal.provenance.operator.starts_with(PROMOTE)) {
            self.rungs.promote(parent, proposal.prompts);
        }
        self.candidates.insert(
            index,
            Candidate {
                schedule: proposal.schedule.clone(),
                first,
                provenance: proposal.provenance.clone(),
                prompts: proposal.prompts,
                again,
                status: Status::Open,
            },
        );
        self.prompts += self.prompts_of(proposal.prompts);
        self.open += 1;
        self.skip_known_seeds();
    }

    /// The candidate was measured. Says whether it joined the front; `None` for a repeated or partial measurement.
    ///
    /// Check with [`Objectives::check`] before the fact is stored whether the measurement has a score.
    pub fn tell(&mut self, index: CandidateId, measurement: &Measurement) -> Result<Option<Inserted>, TellError> {
        let Candidate { schedule, first, provenance, prompts, again, .. } = self.still_open(index)?.clone();
        let observed = self.objectives().observe(measurement, schedule.cache_hit_rate());
        let observed = observed.map_err(|error| TellError::Score(index, error))?;
        self.still_open(index)?.status = Status::Measured;
        self.open -= 1;
        let repeats = again.map(|again| self.disowned.repeated(again, index));
        if index == CandidateId(0) || repeats == Some(Repeats::InPlaceOf(CandidateId(0))) {
            self.rungs.set_baseline(measurement);
            self.calibrate(measurement);
        }
        self.knowledge.time(&self.space, first, &schedule, measurement.into());
        self.told += self.prompts_of(prompts);
        let mut joined = None;
        if let Some(again) = again {
            self.under_way.end(again);
        }
        if let Some(Repeats::Again(again)) = repeats {
            self.knowledge.again(again, &observed);
        } else if let Some(rung) = self.rungs.rung(prompts) {
            let observed = self.knowledge.believed(first, &observed);
            let likely = self.rungs.tell(rung, index, self.knowledge.objectives(), &observed, measurement);
            if let Some(advised) = &mut self.advised {
                advised.tell(index, &schedule, &self.knowledge.objectives().judge(&likely), false);
            }
        } else {
            // What was promoted, or is measured in another's place, is the work of whoever made it.
            let made = match repeats {
                Some(Repeats::InPlaceOf(other)) => self.candidates.get(&other).map(|other| other.provenance.clone()),
                Some(Repeats::Again(_)) | None => None,
            };
            let operator = maker(&made.as_ref().unwrap_or(&provenance).operator);
            let added = self.knowledge.add(index, first, observed, operator == SEED);
            if operator == SEED {
                self.credit.book_seed(SEED, added.gain);
            } else {
                self.credit.book(operator, operator.starts_with(PLANNED), added.gain);
            }
            if let Some(advised) = &mut self.advised {
                advised.tell(index, &schedule, &added.score, true);
            }
            joined = Some(added.inserted);
        }
        if let Some(generations) = &mut self.generations {
            generations.tell(index, self.knowledge.score(index));
        }
        if self.knowledge.is_due() {
            self.settle();
        }
        let (spent, open) = (self.spent(), self.open);
        if let Some(advised) = &mut self.advised {
            advised.pass(measurement.device_time, open, spent);
        }
        Ok(joined)
    }

    /// Another budget holds from now on: how many seeds there are and when the end is near follows from it. The same as if
    /// it had held from the beginning.
    pub fn extend(&mut self, spec: Arc<SearchSpec>) {
        self.seeds.extend(spec.clone());
        self.spec = spec;
        if self.next_seed.is_none() {
            self.next_seed = self.seeds.next(&self.space);
            self.skip_known_seeds();
        }
        let spent = self.spent();
        if let Some(advised) = &mut self.advised {
            advised.close(spent);
        }
    }

    /// What latencies in time rest on from now on: the uncached one, in microseconds per image.
    pub fn refer(&mut self, uncached_us: Option<f64>) {
        self.knowledge.refer(uncached_us);
    }

    /// The candidate will have no measurement: every attempt failed, or it was cancelled. It is not proposed again.
    pub fn fail(&mut self, index: CandidateId) -> Result<(), TellError> {
        let candidate = self.still_open(index)?;
        candidate.status = Status::Failed;
        let (prompts, again) = (candidate.prompts, candidate.again);
        self.open -= 1;
        self.prompts -= self.prompts_of(prompts);
        if let Some(again) = again {
            self.under_way.end(again);
        }
        if let Some(generations) = &mut self.generations {
            generations.tell(index, None);
        }
        Ok(())
    }

    /// Brings everything that was told to bear. Happens now and then by itself, and is for the end of the search.
    pub fn settle(&mut self) {
        if !self.knowledge.rescore() {
            return;
        }
        if let Some(advised) = &mut self.advised {
            advised.rescore(self.knowledge.scores());
        }
        let (objectives, front) = (self.knowledge.objectives(), self.knowledge.archive());
        self.rungs.prune(|hopeful| !front.covers(&objectives.judge(hopeful)));
    }

    /// An adviser for this search that has heard nothing yet; `None` where none can help.
    pub fn adviser(&self) -> Option<Adviser> {
        self.advised.as_ref().and_then(|_| Adviser::new(&self.spec, &self.space))
    }

    /// What the adviser is to hear, since this was last asked.
    pub fn lessons(&mut self) -> Vec<Lesson> {
        self.advised.as_mut().map_or_else(Vec::new, Advised::lessons)
    }

    /// The adviser's answer. One that nobody waits for changes nothing.
    pub fn give(&mut self, advice: Advice) {
        if let Some(advised) = &mut self.advised {
            advised.give(advice);
        }
    }

    /// The adviser is a new one, which is to hear all lessons again: those of a breeder that was made by replay.
    pub fn resume(&mut self) {
        let open = self.open;
        if let Some(advised) = &mut self.advised {
            advised.resume(open);
        }
    }

    /// There will be no advice any more.
    pub fn go_unadvised(&mut self) {
        self.advised = None;
    }

    /// Whether nothing can be proposed before the adviser has answered.
    pub fn is_thinking(&self) -> bool {
        self.advised.as_ref().is_some_and(Advised::is_awaited)
    }

    /// Lets an adviser of one's own hear all lessons, at once and here.
    pub fn think(&mut self, adviser: &mut Option<Adviser>) {
        for lesson in self.lessons() {
            if let Some(advice) = adviser.as_mut().and_then(|adviser| adviser.hear(lesson)) {
                self.give(advice);
            }
        }
    }

    /// A worker's calibration profile gives more seeds.
    fn calibrate(&mut self, measurement: &Measurement) {
        if let Some(profile) = measurement.profile.as_ref().filter(|p| p.slots() == self.space.slots()) {
            self.profiled = true;
            let profile = Arc::new(profile.clone());
            self.seeds = Seeds::new(&self.spec, &self.space, self.baseline_id, Some(profile.clone()));
            self.next_seed = self.seeds.next(&self.space);
            self.skip_known_seeds();
            if let Some(advised) = &mut self.advised {
                advised.calibrate(profile);
            }
        }
    }

    fn skip_known_seeds(&mut self) {
        while self.next_seed.as_ref().is_some_and(|seed| !self.is_new(&seed.id)) {
            self.next_seed = self.seeds.next(&self.space);
        }
    }

    /// The share of the budget that results have used up; 0 where evaluations are not limited.
    fn spent(&self) -> f64 {
        let budget = self.spec.budget.evaluations.map(|n| n as f64 * self.prompts_of(0) as f64);
        budget.map_or(0.0, |budget| self.told as f64 / budget)
    }

    /// The number behind a candidate's prompts, of which 0 means all.
    pub(super) fn prompts_of(&self, prompts: u32) -> u64 {
        if prompts == 0 { self.spec.prompts.len() as u64 } else { u64::from(prompts) }
    }

    fn still_open(&mut self, index: CandidateId) -> Result<&mut Candidate, TellError> {
        let candidate = self.candidates.get_mut(&index).ok_or(TellError::Unknown(index))?;
        match candidate.status {
            Status::Open => Ok(candidate),
            Status::Measured | Status::Failed => Err(TellError::Finished(index)),
        }
    }

    /// The layout of every schedule of the search.
    pub fn layout(&self) -> &Arc<Layout> {
        self.space.layout()
    }

    /// What the search optimises.
    pub fn objectives(&self) -> &Objectives {
        self.knowledge.objectives()
    }

    /// The schedule of a recorded candidate.
    pub fn schedule(&self, index: CandidateId) -> Option<&Arc<Schedule>> {
        self.candidates.get(&index).map(|c| &c.schedule)
    }

    /// The candidate with this schedule, if it was recorded.
    pub fn find(&self, schedule: &ScheduleId) -> Option<CandidateId> {
        self.known.get(schedule).copied()
    }

    /// All that nobody dominates. While nothing keeps every bound, those that violate them least.
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

    /// The hypervolume of the seeds alone, so that one sees what breeding added.
    pub fn seeds_hypervolume(&self) -> f64 {
        self.knowledge.seed_archive().hypervolume()
    }

    /// The names of the imported schedules.
    pub fn imported(&self) -> &Arc<ImportedNames> {
        self.seeds.names()
    }

    /// What each operator had a part in, and what it added to the front, by name.
    pub fn operator_shares(&self) -> Vec<OperatorShare> {
        self.credit.shares()
    }

    /// For each model of the error, its rank correlation with fresh results of about equal cost; `None` until there
    /// are enough. A model whose correlation is poor plans nothing.
    pub fn model_correlations(&self) -> Vec<(&'static str, Option<f64>)> {
        self.advised.as_ref().map_or_else(Vec::new, |advised| advised.current().correlations.clone())
    }

    /// What is believed of a candidate's latency ratio, by all measurements of its schedule.
    pub fn latency_ratio(&self, index: CandidateId) -> Option<Estimate> {
        self.knowledge.estimate(self.candidates.get(&index)?.first)
    }

    /// Relative standard deviation of one measured latency ratio; `None` while nothing was measured twice.
    pub fn latency_noise(&self) -> Option<f64> {
        self.knowledge.latencies().noise()
    }

    /// The candidates that stand for a schedule each: measured on all prompts, and not a repeated measurement. Each with what
    /// is believed of its latency ratio.
    pub fn standing(&self) -> impl Iterator<Item = (CandidateId, f64)> {
        self.knowledge.latency_ratios()
    }

    /// The largest believed speed-up at [`REPORTED_QUALITY_RATIO`](super::REPORTED_QUALITY_RATIO) or more.
    pub fn best_speedup(&self) -> Option<f64> {
        self.knowledge.speedups().all
    }

    /// That of the seeds alone.
    pub fn seeds_best_speedup(&self) -> Option<f64> {
        self.knowledge.speedups().seeds
    }

    /// Evaluations in a row in which the hypervolume did not grow; 0 unless the budget asks for it.
    pub fn stagnant(&self) -> u64 {
        self.knowledge.stagnant()
    }

    /// Whether a calibration profile was measured.
    pub fn is_profiled(&self) -> bool {
        self.profiled
    }

    pub(super) fn is_new(&self, id: &ScheduleId) -> bool {
        id != &self.baseline_id && !self.known.contains_key(id)
    }
}

/// The operator of every seed.
pub(super) const SEED: &str = "seed";
/// The operator of what is measured once more.
pub const REMEASURE: &str = "remeasure";
/// How the operator of what is evaluated on more prompts begins; then follows what made it.
pub(super) const PROMOTE: &str = "promote:";
/// How the operators of what a model planned begin.
const PLANNED: &str = "model-";

/// What made a schedule, whether it was promoted or not.
pub(super) fn maker(operator: &str) -> &str {
    operator.strip_prefix(PROMOTE).unwrap_or(operator)
}

#[cfg(test)]
#[path = "breeder_tests.rs"]
mod tests;
