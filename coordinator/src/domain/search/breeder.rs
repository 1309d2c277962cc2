//! The breeder: what has been proposed, what came back, and what to try next.

use std::collections::BTreeMap;
use std::sync::Arc;

use evocache_proto::domain::{
    CandidateId, Layout, Measurement, Schedule, ScheduleError, ScheduleId, SearchSpec, Strategy,
};

use super::credit::{Credit, OperatorShare};
use super::genome::{Genome, Space};
use super::model::Model;
use super::population::Population;
use super::seeds::{self, Seed};
use super::variation::Variation;
use super::{Parts, Proposal, Provenance, parents, random};
use crate::domain::archive::{Archive, Inserted, Member};
use crate::domain::hypervolume::Staircase;
use crate::domain::objective::{Objectives, ScoreError};
use crate::domain::rng::Stream;

/// Offspring bred before the breeder falls back on random schedules.
const BREEDING_TRIES: usize = 16;
/// Random schedules drawn before it looks through the whole space, where that is small.
const RANDOM_TRIES: usize = 64;
/// Shares of the parents that come from the archive by its gaps and by contribution; the rest from the population.
const ARCHIVE_PARENTS: (f64, f64) = (0.4, 0.3);
/// Limits of the share of offspring that a trusted model plans, whatever its credit.
const MODEL_SHARE: (f64, f64) = (0.2, 0.95);
/// Beyond this share the model plans everything at the end of the budget.
const CLEAR: f64 = 0.8;
/// What a newcomer to the front is credited with where the hypervolume has more than two dimensions.
const JOINING: f64 = 1e-3;

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
struct Candidate {
    schedule: Arc<Schedule>,
    operator: String,
    family: String,
    status: Status,
}

/// The state of one search's breeding.
///
/// The engine calls [`record`](Self::record), [`tell`](Self::tell) and [`fail`](Self::fail) when it applies a fact,
/// live and in replay, and [`ask`](Self::ask) when it decides. Equal facts in equal order make equal breeders.
#[derive(Debug, Clone, PartialEq)]
pub struct Breeder {
    spec: Arc<SearchSpec>,
    space: Space,
    variation: Variation,
    objectives: Objectives,
    baseline: Arc<Schedule>,
    baseline_id: ScheduleId,
    seeds: Vec<Seed>,
    /// Seeds before this one are known.
    next_seed: usize,
    candidates: BTreeMap<CandidateId, Candidate>,
    known: BTreeMap<ScheduleId, CandidateId>,
    population: Population,
    archive: Archive,
    seed_archive: Archive,
    /// The archive's staircase, while there are two objectives: what a result adds is its credit.
    stairs: Option<Staircase>,
    credit: Credit,
    parts: Parts,
    model: Option<Model>,
}

impl Breeder {
    /// A search before its first candidate. `layout` is what the first worker declared.
    pub fn new(spec: Arc<SearchSpec>, layout: Arc<Layout>) -> Result<Self, BreederError> {
        Self::with_parts(spec, layout, Parts::default())
    }

    /// The same with parts left out, to see what they are worth.
    pub fn with_parts(spec: Arc<SearchSpec>, layout: Arc<Layout>, parts: Parts) -> Result<Self, BreederError> {
        if let Some(imported) = spec.imported.iter().find(|i| i.schedule.layout() != &layout) {
            return Err(BreederError::ImportedLayout {
                name: imported.name.clone(),
                found: imported.schedule.layout().to_string(),
                layout: layout.to_string(),
            });
        }
        let baseline = Arc::new(Schedule::all_compute(layout.clone(), spec.sampling.baseline_steps())?);
        let space = Space::new(layout, &spec.sampling.steps, spec.forecast);
        let baseline_id = baseline.id();
        let seeds = seeds::all(&spec, &space, baseline_id);
        Ok(Self {
            variation: Variation::new(spec.algorithm.crossover, parts.operators),
            model: Model::new(&spec, &space)
                .filter(|_| parts.model && spec.algorithm.strategy == Strategy::SteadyState),
            stairs: (spec.objectives.len() == 2).then(|| Staircase::new((1.0, 1.0))),
            credit: Credit::default(),
            parts,
            objectives: Objectives::new(&spec),
            population: Population::new(spec.algorithm.population as usize),
            spec,
            space,
            baseline,
            baseline_id,
            seeds,
            next_seed: 0,
            candidates: BTreeMap::new(),
            known: BTreeMap::new(),
            archive: Archive::new(),
            seed_archive: Archive::new(),
        })
    }

    /// The candidate to evaluate under this index. Pure: asking changes nothing, and asking again answers the same.
    ///
    /// Candidate 0 is the all-compute schedule of the largest step count. No schedule that is already known (open,
    /// measured or failed) is proposed again. `None`: nothing new was found, which happens in tiny spaces only.
    pub fn ask(&self, index: CandidateId) -> Option<Proposal> {
        if index == CandidateId(0) {
            let provenance = seed_provenance("all-compute");
            return Some(Proposal { schedule: self.baseline.clone(), provenance });
        }
        if let Some(seed) = self.seeds[self.next_seed..].iter().find(|seed| self.is_new(&seed.id)) {
            return Some(Proposal { schedule: seed.schedule.clone(), provenance: seed_provenance(seed.family) });
        }
        let mut stream = Stream::new(self.spec.seed, "offspring", index.0);
        let bred = match self.spec.algorithm.strategy {
            Strategy::SteadyState => self.planned(&mut stream).or_else(|| self.breed(&mut stream)),
            Strategy::Random => None,
        };
        bred.or_else(|| self.draw(&mut stream)).or_else(|| self.look_through())
    }

    /// The candidate exists from now on, as proposed. A repeat changes nothing.
    pub fn record(&mut self, index: CandidateId, proposal: &Proposal) {
        if self.candidates.contains_key(&index) {
            return;
        }
        self.known.entry(proposal.schedule.id()).or_insert(index);
        self.candidates.insert(
            index,
            Candidate {
                schedule: proposal.schedule.clone(),
                operator: proposal.provenance.operator.clone(),
                family: proposal.provenance.seed_family.clone(),
                status: Status::Open,
            },
        );
        while self.seeds.get(self.next_seed).is_some_and(|seed| !self.is_new(&seed.id)) {
            self.next_seed += 1;
        }
    }

    /// The candidate was measured. Says whether it joined the front.
    ///
    /// Check with [`objectives`](Self::objectives) before the fact is stored whether the measurement has a score.
    pub fn tell(&mut self, index: CandidateId, measurement: &Measurement) -> Result<Inserted, TellError> {
        let candidate = self.open(index)?;
        let (schedule, operator) = (candidate.schedule.clone(), candidate.operator.clone());
        let score = self.objectives.score(measurement, schedule.cache_hit_rate());
        let score = score.map_err(|error| TellError::Score(index, error))?;
        self.open(index)?.status = Status::Measured;
        self.population.insert(Member { candidate: index, score });
        if operator == SEED {
            self.seed_archive.insert(index, score);
        }
        let inserted = self.archive.insert(index, score);
        let gain = match (&mut self.stairs, inserted) {
            (Some(stairs), _) if score.is_feasible() => stairs.insert(score.losses[0], score.losses[1]),
            (None, Inserted::Joined(_)) => JOINING,
            _ => 0.0,
        };
        if operator == SEED {
            self.credit.book_seed(SEED, gain);
        } else {
            self.credit.book(&operator, operator.starts_with(PLANNED), gain);
        }
        if let Some(model) = &mut self.model {
            model.tell(&self.space, &schedule, &score);
        }
        Ok(inserted)
    }

    /// The candidate will have no measurement: every attempt failed, or it was cancelled. It is not proposed again.
    pub fn fail(&mut self, index: CandidateId) -> Result<(), TellError> {
        self.open(index)?.status = Status::Failed;
        Ok(())
    }

    fn open(&mut self, index: CandidateId) -> Result<&mut Candidate, TellError> {
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
        &self.objectives
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
        &self.archive
    }

    /// The current parents: the best `algorithm.population` measured candidates, front by front.
    pub fn population(&self) -> impl Iterator<Item = &Member> {
        self.population.members()
    }

    /// The hypervolume of the front, in losses with the reference point 1.
    pub fn hypervolume(&self) -> f64 {
        self.archive.hypervolume()
    }

    /// The hypervolume of the seeds alone, so that one sees what breeding added.
    pub fn seeds_hypervolume(&self) -> f64 {
        self.seed_archive.hypervolume()
    }

    /// How many heuristic and imported schedules the search starts from, candidate 0 not counted.
    pub fn seeds(&self) -> usize {
        self.seeds.len()
    }

    /// What each operator had a part in, and what it added to the front, by name.
    pub fn operator_shares(&self) -> Vec<OperatorShare> {
        self.credit.shares()
    }

    /// For each model of the error, its rank correlation with fresh results of about equal cost; `None` until there
    /// are enough. A model whose correlation is poor plans nothing.
    pub fn model_correlations(&self) -> Vec<(&'static str, Option<f64>)> {
        self.model.as_ref().map_or_else(Vec::new, Model::correlations)
    }

    fn is_new(&self, id: &ScheduleId) -> bool {
        id != &self.baseline_id && !self.known.contains_key(id)
    }

    fn propose(&self, genome: &Genome, provenance: impl FnOnce() -> Provenance) -> Option<Proposal> {
        let schedule = genome.to_schedule(&self.space)?;
        self.is_new(&schedule.id()).then(|| Proposal { schedule: Arc::new(schedule), provenance: provenance() })
    }

    /// The next schedule of the model's plan, as often as its credit allows.
    fn planned(&self, stream: &mut Stream) -> Option<Proposal> {
        let model = self.model.as_ref()?;
        let share = self.credit.planned_share().clamp(MODEL_SHARE.0, MODEL_SHARE.1);
        let chance = stream.chance(share);
        let certain = model.is_closing() && share > CLEAR;
        if !(chance || certain) {
            return None;
        }
        let planned = model.plan().iter().find(|planned| self.is_new(&planned.id))?;
        let provenance =
            Provenance { parents: Vec::new(), operator: planned.operator.to_owned(), seed_family: MODEL.to_owned() };
        Some(Proposal { schedule: planned.schedule.clone(), provenance })
    }

    /// An offspring of measured parents; `None` without parents or luck.
    fn breed(&self, stream: &mut Stream) -> Option<Proposal> {
        for attempt in 0..BREEDING_TRIES {
            let first = self.parent(stream)?;
            let second = self.parent(stream)?;
            let (a, b) = (self.candidates.get(&first)?, self.candidates.get(&second)?);
            let other = (first != second).then(|| Genome::of(&b.schedule));
            let child =
                self.variation.offspring(&self.space, Genome::of(&a.schedule), other, attempt, &self.credit, stream);
            let proposal = self.propose(&child.genome, || Provenance {
                parents: if child.crossed { vec![first, second] } else { vec![first] },
                operator: child.operator,
                seed_family: a.family.clone(),
            });
            if proposal.is_some() {
                return proposal;
            }
        }
        None
    }

    /// A member of the archive, or the winner of a binary tournament in the population.
    fn parent(&self, stream: &mut Stream) -> Option<CandidateId> {
        if !self.parts.selection {
            return self.population.any(stream);
        }
        let (gaps, contribution) = ARCHIVE_PARENTS;
        match stream.unit() {
            u if u < gaps => parents::spread(&self.archive, stream),
            u if u < gaps + contribution => parents::contribution(&self.archive, stream),
            _ => self.population.tournament(stream),
        }
    }

    fn draw(&self, stream: &mut Stream) -> Option<Proposal> {
        (0..RANDOM_TRIES).find_map(|_| self.propose(&random::any_density(&self.space, stream), random_provenance))
    }

    /// The first new schedule of a space that is small enough to be listed.
    fn look_through(&self) -> Option<Proposal> {
        random::list(&self.space).find_map(|genome| self.propose(&genome, random_provenance))
    }
}

/// The operator of every seed.
const SEED: &str = "seed";
/// The family of what a model planned.
const MODEL: &str = "model";
/// How the operators of what a model planned begin.
const PLANNED: &str = "model-";

fn seed_provenance(family: &str) -> Provenance {
    Provenance { parents: Vec::new(), operator: SEED.to_owned(), seed_family: family.to_owned() }
}

fn random_provenance() -> Provenance {
    Provenance { parents: Vec::new(), operator: "random".to_owned(), seed_family: "random".to_owned() }
}

#[cfg(test)]
#[path = "breeder_tests.rs"]
mod tests;
