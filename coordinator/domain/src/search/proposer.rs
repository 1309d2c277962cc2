//! Proposes candidates. `README.md` explains the order.
//!
//! **Invariant:** reads the breeder's state and never changes it.

use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Layout, Maker, Origin, PromptSet, Schedule, SearchSpec, Strategy};

use super::breeder::{Breeder, BreederError, baseline};
use super::genome::Genome;
use super::provenance::{Proposal, Provenance};
use super::remeasure::{self, Witness};
use super::{nsga2, parents, random};
use crate::rng::Stream;

/// Attempts to breed a new schedule before falling back to random schedules.
const BREEDING_TRIES: usize = 16;
/// Random schedules drawn before a small space is enumerated.
const RANDOM_TRIES: usize = 64;
/// Shares of parents chosen from the archive by gaps and by contribution; the rest come from the population.
const ARCHIVE_PARENTS: (f64, f64) = (0.4, 0.3);
/// Limits of the share of new candidates that is planned, regardless of credit.
const MODEL_SHARE: (f64, f64) = (0.2, 0.95);
/// With a larger share, all new candidates at the end of the budget are planned.
const CLEAR: f64 = 0.8;
/// The share of plans that run both passes of the guidance at every step, so that the models go on learning.
const PLAIN: f64 = 0.25;
/// The seed family of planned schedules.
const MODEL: &str = "model";

impl Breeder {
    /// Candidate 0 of a search, without building a breeder.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new).
    pub fn first_proposal(spec: &SearchSpec, layout: &Arc<Layout>) -> Result<Proposal, BreederError> {
        baseline(spec, layout).map(uncached)
    }

    /// The candidate to evaluate under this index. Does not change the state, so repeated calls give the same answer.
    ///
    /// Candidate 0 is the all-compute schedule at the largest step count. A known schedule (open, measured or failed)
    /// is proposed again only to repeat its measurement or to evaluate it on more prompts. `None` if no new schedule
    /// was found, as in tiny spaces, or if nothing can be proposed before open candidates have results or the planner
    /// has answered.
    pub fn ask(&self, index: CandidateId) -> Option<Proposal> {
        self.ask_for(index, Witness::ONLY_WORKER)
    }

    /// The same for one of several workers; `witness` tells who has measured a candidate.
    pub fn ask_for(&self, index: CandidateId, witness: Witness<'_>) -> Option<Proposal> {
        if index == CandidateId(0) {
            return Some(uncached(self.baseline.clone()));
        }
        if self.awaits_plan() {
            return None;
        }
        let mut stream = Stream::new(self.spec.seed, "offspring", index.0);
        self.replacement().or_else(|| match self.spec.algorithm.strategy {
            Strategy::Imported => self.seed().or_else(|| self.repeat_of_all(witness)),
            Strategy::Nsga2 => self.next_of_nsga2(index, witness, &mut stream),
            Strategy::SteadyState if !self.parts.search => {
                self.random(&mut stream).or_else(|| self.first_new_of_small_space())
            }
            Strategy::SteadyState => self.next_of_steady_state(index, witness, &mut stream),
        })
    }

    fn next_of_steady_state(&self, index: CandidateId, witness: Witness<'_>, stream: &mut Stream) -> Option<Proposal> {
        self.promotion()
            .or_else(|| self.repeat_at_the_end(witness))
            .or_else(|| self.seed())
            .or_else(|| self.repeat_meanwhile(index, witness, stream))
            .or_else(|| self.planned(stream))
            .or_else(|| self.offspring(stream))
            .or_else(|| self.random(stream))
            .or_else(|| self.first_new_of_small_space())
    }

    /// The first generation consists of seeds and random schedules. Later ones wait for all results of the generation
    /// before.
    fn next_of_nsga2(&self, index: CandidateId, witness: Witness<'_>, stream: &mut Stream) -> Option<Proposal> {
        if let Some(check) = self.promotion().or_else(|| self.repeat_at_the_end(witness)) {
            return Some(check);
        }
        match self.generations.as_ref()?.breeds(index) {
            Some(true) => self.child_of_generation(stream).or_else(|| self.random(stream)),
            Some(false) => None,
            None => self.seed().or_else(|| self.random(stream)).or_else(|| self.first_new_of_small_space()),
        }
    }

    fn seed(&self) -> Option<Proposal> {
        let seed = self.next_seed.as_ref()?;
        Some(self.propose(seed.schedule.clone(), Provenance::founder(Maker::Seed, seed.family)))
    }

    /// A new schedule, on the prompts of the first rung.
    fn propose(&self, schedule: Arc<Schedule>, provenance: Provenance) -> Proposal {
        Proposal { schedule, provenance: Arc::new(provenance), prompts: self.rungs.first() }
    }

    /// A known schedule, for a repeat or a promotion.
    fn propose_known(&self, parent: CandidateId, origin: Origin, prompts: PromptSet) -> Option<Proposal> {
        let candidate = self.ledger.get(parent)?;
        let seed_family = candidate.provenance.seed_family.clone();
        let provenance = Provenance { parents: vec![parent], origin, seed_family };
        Some(Proposal { schedule: candidate.schedule.clone(), provenance: Arc::new(provenance), prompts })
    }

    fn repeat(&self, candidate: CandidateId) -> Option<Proposal> {
        self.propose_known(candidate, Origin::Repeat, PromptSet::All)
    }

    /// The repeat that replaces an excluded result.
    fn replacement(&self) -> Option<Proposal> {
        self.repeat(self.repeats.to_replace()?)
    }

    /// The promotion of the most promising candidate to more prompts.
    fn promotion(&self) -> Option<Proposal> {
        let knowledge = &self.knowledge;
        let (candidate, prompts) = self.rungs.next(knowledge.objectives(), knowledge.archive(), knowledge.stairs())?;
        let maker = self.ledger.get(candidate)?.provenance.origin.maker()?.clone();
        self.propose_known(candidate, Origin::Promotion(maker), prompts)
    }

    fn repeat_meanwhile(&self, index: CandidateId, witness: Witness<'_>, stream: &mut Stream) -> Option<Proposal> {
        let due = || remeasure::in_between(index, &self.knowledge, &self.repeats, witness, stream);
        self.repeat(self.spec.algorithm.remeasure.then(due).flatten()?)
    }

    fn repeat_at_the_end(&self, witness: Witness<'_>) -> Option<Proposal> {
        let budget = self.spec.budget.evaluations.filter(|_| self.spec.algorithm.remeasure)?;
        let left = budget.saturating_sub(self.ledger.evaluations_begun());
        self.repeat(remeasure::at_the_end(left, budget, &self.knowledge, &self.repeats, witness)?)
    }

    /// A repeat of any schedule that was measured once.
    fn repeat_of_all(&self, witness: Witness<'_>) -> Option<Proposal> {
        let once = |c: &CandidateId| self.knowledge.count(*c) == 1 && !self.repeats.is_under_way(*c);
        let due = self.knowledge.candidates().filter(once).min_by_key(|&c| ((witness.alone)(c), c));
        self.repeat(due.filter(|_| self.spec.algorithm.remeasure)?)
    }

    /// A proposal of the genome's schedule, if that is new.
    fn if_new(&self, genome: &Genome, provenance: impl FnOnce() -> Provenance) -> Option<Proposal> {
        let schedule = genome.to_schedule(&self.space)?;
        self.is_new(&schedule.id()).then(|| self.propose(Arc::new(schedule), provenance()))
    }

    /// The next new schedule of the plan, with the probability that its credit gives.
    fn planned(&self, stream: &mut Stream) -> Option<Proposal> {
        let link = self.planner_link.as_ref()?;
        let share = self.credit.planned_share().clamp(MODEL_SHARE.0, MODEL_SHARE.1);
        let chance = stream.chance(share);
        let certain = link.is_closing() && share > CLEAR;
        if !(chance || certain) {
            return None;
        }
        let planned = link.plan().schedules.iter().find(|planned| self.is_new(&planned.id))?;
        let maker = Maker::Planned(planned.how.to_owned());
        let schedule =
            self.guided_like_the_front(&planned.schedule, stream).unwrap_or_else(|| planned.schedule.clone());
        Some(self.propose(schedule, Provenance::founder(maker, MODEL)))
    }

    /// The schedule with the guidance decisions of some member of the front, which the models do not know; `None` if that
    /// was proposed before, or for a quarter of all plans.
    fn guided_like_the_front(&self, schedule: &Schedule, stream: &mut Stream) -> Option<Arc<Schedule>> {
        if !self.space.guidance() || stream.chance(PLAIN) {
            return None;
        }
        let members = self.front().members();
        let member = members.get(stream.below(members.len().max(1)))?;
        let model = self.schedule(member.candidate)?;
        let (from, to) = (model.steps(), schedule.steps());
        let guided = schedule.clone().with_guidance(|step| model.guidance(step * from / to));
        self.is_new(&guided.id()).then(|| Arc::new(guided))
    }

    /// An offspring of measured parents; `None` without parents or if no attempt gave a new schedule.
    fn offspring(&self, stream: &mut Stream) -> Option<Proposal> {
        for attempt in 0..BREEDING_TRIES {
            let first = self.parent(stream)?;
            let second = self.parent(stream)?;
            let (a, b) = (self.ledger.get(first)?, self.ledger.get(second)?);
            let other = (first != second).then(|| Genome::of(&b.schedule));
            let child =
                self.variation.offspring(&self.space, Genome::of(&a.schedule), other, attempt, &self.credit, stream);
            let proposal = self.if_new(&child.genome, || Provenance {
                parents: if child.crossed { vec![first, second] } else { vec![first] },
                origin: Origin::bred(child.operators),
                seed_family: a.provenance.seed_family.clone(),
            });
            if proposal.is_some() {
                return proposal;
            }
        }
        None
    }

    /// An offspring for NSGA-II's next generation.
    fn child_of_generation(&self, stream: &mut Stream) -> Option<Proposal> {
        let generations = self.generations.as_ref()?;
        (0..BREEDING_TRIES).find_map(|_| {
            let (first, second) = (generations.parent(stream)?, generations.parent(stream)?);
            let (a, b) = (self.ledger.get(first)?, self.ledger.get(second)?);
            let crosses = stream.chance(self.spec.algorithm.crossover);
            let other = crosses.then(|| Genome::of(&b.schedule));
            let (genome, operators) = nsga2::child(&self.space, Genome::of(&a.schedule), other, stream);
            self.if_new(&genome, || Provenance {
                parents: if crosses { vec![first, second] } else { vec![first] },
                origin: Origin::bred(operators),
                seed_family: a.provenance.seed_family.clone(),
            })
        })
    }

    /// A parent: a member of the archive, or the winner of a binary tournament in the population.
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

    fn random(&self, stream: &mut Stream) -> Option<Proposal> {
        (0..RANDOM_TRIES).find_map(|_| self.if_new(&random::any_density(&self.space, stream), random_provenance))
    }

    /// The first new schedule of a space that is small enough to be listed.
    fn first_new_of_small_space(&self) -> Option<Proposal> {
        random::list(&self.space).find_map(|genome| self.if_new(&genome, random_provenance))
    }
}

/// The uncached run, on all prompts.
fn uncached(schedule: Arc<Schedule>) -> Proposal {
    Proposal { schedule, provenance: Arc::new(Provenance::founder(Maker::Seed, "uncached")), prompts: PromptSet::All }
}

fn random_provenance() -> Provenance {
    Provenance::founder(Maker::Random, "random")
}
