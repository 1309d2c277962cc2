//! What the breeder proposes next: what must be measured again, checks, seeds, plans, offspring, chance, in this order. See `README.md`.
//!
//! Everything here reads the breeder's state and changes nothing. Absent: results, which are in `breeder.rs`.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Layout, Schedule, SearchSpec, Strategy};

use super::breeder::{Breeder, BreederError, PROMOTE, REMEASURE, SEED, baseline, maker};
use super::genome::Genome;
use super::remeasure::{self, Witness};
use super::{Proposal, Provenance, nsga2, parents, random};
use crate::rng::Stream;

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
/// The family of what a model planned.
const MODEL: &str = "model";

/// The uncached run, on all prompts.
fn uncached(baseline: Arc<Schedule>) -> Proposal {
    seed(baseline, "uncached", 0)
}

fn seed(schedule: Arc<Schedule>, family: &str, prompts: u32) -> Proposal {
    let provenance = Provenance { parents: Vec::new(), operator: SEED.to_owned(), seed_family: family.to_owned() };
    Proposal { schedule, provenance: Arc::new(provenance), prompts }
}

impl Breeder {
    /// What a new breeder proposes as candidate 0, without building one; fails as [`new`](Self::new) does.
    pub fn first_proposal(spec: &SearchSpec, layout: &Arc<Layout>) -> Result<Proposal, BreederError> {
        baseline(spec, layout).map(uncached)
    }

    /// The candidate to evaluate under this index. Pure: asking changes nothing, and asking again answers the same.
    ///
    /// Candidate 0 is the all-compute schedule of the largest step count. No schedule that is already known (open,
    /// measured or failed) is proposed again, but to measure a member of the front once more or to evaluate a promising
    /// one on more prompts. `None`: nothing new was found, which happens in tiny spaces, or nothing can be bred before
    /// open candidates have their results or the adviser has answered.
    pub fn ask(&self, index: CandidateId) -> Option<Proposal> {
        self.ask_for(index, Witness::NOBODY)
    }

    /// The same for one of several workers.
    pub fn ask_for(&self, index: CandidateId, witness: Witness<'_>) -> Option<Proposal> {
        if index == CandidateId(0) {
            return Some(uncached(self.baseline.clone()));
        }
        if self.is_thinking() {
            return None;
        }
        if let Some(proposal) = self.in_place_of_disowned() {
            return Some(proposal);
        }
        let mut stream = Stream::new(self.spec.seed, "offspring", index.0);
        if self.spec.algorithm.strategy == Strategy::Imported {
            return self.next_seed().or_else(|| self.check_all(witness));
        }
        if let Some(proposal) = self.promotion().or_else(|| self.check_at_the_end(witness)) {
            return Some(proposal);
        }
        if let Some(breeds) = self.generations.as_ref().and_then(|g| g.breeds(index)) {
            return if breeds { self.next_generation(&mut stream).or_else(|| self.draw(&mut stream)) } else { None };
        }
        if let Some(seed) = self.next_seed() {
            return Some(seed);
        }
        let bred = match self.spec.algorithm.strategy {
            Strategy::SteadyState => {
                let again = self.check_in_between(index, witness, &mut stream);
                again.or_else(|| self.planned(&mut stream)).or_else(|| self.breed(&mut stream))
            }
            Strategy::Random | Strategy::Nsga2 | Strategy::Imported => None,
        };
        bred.or_else(|| self.draw(&mut stream)).or_else(|| self.look_through())
    }

    fn seed(&self, schedule: Arc<Schedule>, family: &str) -> Proposal {
        seed(schedule, family, self.rungs.first())
    }

    fn next_seed(&self) -> Option<Proposal> {
        let seed = self.next_seed.as_ref()?;
        Some(self.seed(seed.schedule.clone(), seed.family))
    }

    /// The schedule of a candidate once more.
    fn once_more(&self, parent: CandidateId, operator: String, prompts: u32) -> Option<Proposal> {
        let candidate = self.candidates.get(&parent)?;
        let provenance =
            Provenance { parents: vec![parent], operator, seed_family: candidate.provenance.seed_family.clone() };
        Some(Proposal { schedule: candidate.schedule.clone(), provenance: Arc::new(provenance), prompts })
    }

    /// The schedule of a result that is not believed.
    fn in_place_of_disowned(&self) -> Option<Proposal> {
        let waiting = self.disowned.waiting(|candidate| self.under_way.has(candidate))?;
        self.once_more(waiting, REMEASURE.to_owned(), 0)
    }

    /// A candidate that is worth more prompts.
    fn promotion(&self) -> Option<Proposal> {
        let knowledge = &self.knowledge;
        let (candidate, prompts) = self.rungs.next(knowledge.objectives(), knowledge.archive(), knowledge.stairs())?;
        let made = maker(&self.candidates.get(&candidate)?.provenance.operator);
        self.once_more(candidate, format!("{PROMOTE}{made}"), prompts)
    }

    fn check_in_between(&self, index: CandidateId, witness: Witness<'_>, stream: &mut Stream) -> Option<Proposal> {
        let due = || remeasure::in_between(index, &self.knowledge, &self.under_way, witness, stream);
        self.once_more(self.spec.algorithm.remeasure.then(due).flatten()?, REMEASURE.to_owned(), 0)
    }

    fn check_at_the_end(&self, witness: Witness<'_>) -> Option<Proposal> {
        let budget = self.spec.budget.evaluations.filter(|_| self.spec.algorithm.remeasure)?;
        let left = budget.saturating_sub(self.prompts / self.prompts_of(0));
        let due = remeasure::at_the_end(left, budget, &self.knowledge, &self.under_way, witness)?;
        self.once_more(due, REMEASURE.to_owned(), 0)
    }

    /// Whoever was measured only once.
    fn check_all(&self, witness: Witness<'_>) -> Option<Proposal> {
        let once = |c: &CandidateId| self.knowledge.count(*c) == 1 && !self.under_way.has(*c);
        let due = self.knowledge.candidates().filter(once).min_by_key(|&c| ((witness.alone)(c), c));
        let due = due.filter(|_| self.spec.algorithm.remeasure)?;
        self.once_more(due, REMEASURE.to_owned(), 0)
    }

    fn propose(&self, genome: &Genome, provenance: impl FnOnce() -> Provenance) -> Option<Proposal> {
        let schedule = genome.to_schedule(&self.space)?;
        self.is_new(&schedule.id()).then(|| Proposal {
            schedule: Arc::new(schedule),
            provenance: Arc::new(provenance()),
            prompts: self.rungs.first(),
        })
    }

    /// The next schedule of the model's plan, as often as its credit allows.
    fn planned(&self, stream: &mut Stream) -> Option<Proposal> {
        let advised = self.advised.as_ref()?;
        let share = self.credit.planned_share().clamp(MODEL_SHARE.0, MODEL_SHARE.1);
        let chance = stream.chance(share);
        let certain = advised.is_closing() && share > CLEAR;
        if !(chance || certain) {
            return None;
        }
        let planned = advised.current().plan.iter().find(|planned| self.is_new(&planned.id))?;
        let provenance =
            Provenance { parents: Vec::new(), operator: planned.operator.to_owned(), seed_family: MODEL.to_owned() };
        Some(Proposal {
            schedule: planned.schedule.clone(),
            provenance: Arc::new(provenance),
            prompts: self.rungs.first(),
        })
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
                seed_family: a.provenance.seed_family.clone(),
            });
            if proposal.is_some() {
                return proposal;
            }
        }
        None
    }

    /// An offspring in NSGA-II's next generation.
    fn next_generation(&self, stream: &mut Stream) -> Option<Proposal> {
        let generations = self.generations.as_ref()?;
        (0..BREEDING_TRIES).find_map(|_| {
            let (first, second) = (generations.parent(stream)?, generations.parent(stream)?);
            let (a, b) = (self.candidates.get(&first)?, self.candidates.get(&second)?);
            let crosses = stream.chance(self.spec.algorithm.crossover);
            let other = crosses.then(|| Genome::of(&b.schedule));
            let (genome, operator) = nsga2::child(&self.space, Genome::of(&a.schedule), other, stream);
            self.propose(&genome, || Provenance {
                parents: if crosses { vec![first, second] } else { vec![first] },
                operator: operator.to_owned(),
                seed_family: a.provenance.seed_family.clone(),
            })
        })
    }

    /// A member of the archive, or the winner of a binary tournament in the population.
    fn parent(&self, stream: &mut Stream) -> Option<CandidateId> {
        if !self.parts.selection {
            return self.knowledge.population().any(stream);
        }
        let (gaps, contribution) = ARCHIVE_PARENTS;
        match stream.unit() {
            u if u < gaps => parents::spread(self.front(), stream),
            u if u < gaps + contribution => parents::contribution(self.front(), stream),
            _ => self.knowledge.population().tournament(stream),
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

fn random_provenance() -> Provenance {
    Provenance { parents: Vec::new(), operator: "random".to_owned(), seed_family: "random".to_owned() }
}
