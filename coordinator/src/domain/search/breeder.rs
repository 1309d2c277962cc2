//! The breeder: what has been proposed, what came back, and what to try next.

use std::collections::BTreeMap;
use std::sync::Arc;

use evocache_proto::domain::{
    CandidateId, Layout, Measurement, Schedule, ScheduleError, ScheduleId, SearchSpec, Strategy,
};

use super::genome::{Genome, Space};
use super::population::Population;
use super::seeds::{self, Seed};
use super::variation::Variation;
use super::{Proposal, Provenance, random};
use crate::domain::archive::{Archive, Inserted, Member};
use crate::domain::objective::{Objectives, ScoreError};
use crate::domain::rng::Stream;

/// Offspring bred before the breeder falls back on random schedules.
const BREEDING_TRIES: usize = 16;
/// Random schedules drawn before it looks through the whole space, where that is small.
const RANDOM_TRIES: usize = 64;
/// Share of the parents that come from the whole archive rather than from the population.
const ARCHIVE_PARENTS: f64 = 0.5;

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
    seed: bool,
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
}

impl Breeder {
    /// A search before its first candidate. `layout` is what the first worker declared.
    pub fn new(spec: Arc<SearchSpec>, layout: Arc<Layout>) -> Result<Self, BreederError> {
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
            variation: Variation::new(spec.algorithm.crossover),
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
            Strategy::SteadyState => self.breed(&mut stream),
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
                seed: proposal.provenance.operator == SEED,
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
        let (hit_rate, seed) = (candidate.schedule.cache_hit_rate(), candidate.seed);
        let score = self.objectives.score(measurement, hit_rate).map_err(|error| TellError::Score(index, error))?;
        self.open(index)?.status = Status::Measured;
        self.population.insert(Member { candidate: index, score });
        if seed {
            self.seed_archive.insert(index, score);
        }
        Ok(self.archive.insert(index, score))
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

    fn is_new(&self, id: &ScheduleId) -> bool {
        id != &self.baseline_id && !self.known.contains_key(id)
    }

    fn propose(&self, genome: &Genome, provenance: impl FnOnce() -> Provenance) -> Option<Proposal> {
        let schedule = genome.to_schedule(&self.space)?;
        self.is_new(&schedule.id()).then(|| Proposal { schedule: Arc::new(schedule), provenance: provenance() })
    }

    /// An offspring of measured parents; `None` without parents or luck.
    fn breed(&self, stream: &mut Stream) -> Option<Proposal> {
        for attempt in 0..BREEDING_TRIES {
            let first = self.parent(stream)?;
            let second = self.parent(stream)?;
            let (a, b) = (self.candidates.get(&first)?, self.candidates.get(&second)?);
            let other = (first != second).then(|| Genome::of(&b.schedule));
            let child = self.variation.offspring(&self.space, Genome::of(&a.schedule), other, attempt, stream);
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

    /// A binary tournament in the population, or a member of the archive.
    fn parent(&self, stream: &mut Stream) -> Option<CandidateId> {
        if stream.chance(ARCHIVE_PARENTS) { spread(&self.archive, stream) } else { self.population.tournament(stream) }
    }

    fn draw(&self, stream: &mut Stream) -> Option<Proposal> {
        (0..RANDOM_TRIES).find_map(|_| self.propose(&random::any_density(&self.space, stream), random_provenance))
    }

    /// The first new schedule of a space that is small enough to be listed.
    fn look_through(&self) -> Option<Proposal> {
        random::list(&self.space).find_map(|genome| self.propose(&genome, random_provenance))
    }
}

/// A member of the front chosen evenly along a random objective, not evenly among the members: where the front has
/// gaps, the members beside them are chosen more often.
fn spread(archive: &Archive, stream: &mut Stream) -> Option<CandidateId> {
    let members = archive.members();
    let objective = stream.below(members.first()?.score.values.len());
    let at = |m: &Member| m.score.values[objective];
    let (low, high) = members.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), m| (l.min(at(m)), h.max(at(m))));
    let target = low + (high - low) * stream.unit();
    let nearest = members.iter().min_by(|a, b| (at(a) - target).abs().total_cmp(&(at(b) - target).abs()));
    nearest.map(|m| m.candidate)
}

/// The operator of every seed.
const SEED: &str = "seed";

fn seed_provenance(family: &str) -> Provenance {
    Provenance { parents: Vec::new(), operator: SEED.to_owned(), seed_family: family.to_owned() }
}

fn random_provenance() -> Provenance {
    Provenance { parents: Vec::new(), operator: "random".to_owned(), seed_family: "random".to_owned() }
}

#[cfg(test)]
#[path = "breeder_tests.rs"]
mod tests;
