//! Adds a search up anew, without the results of a worker that is not believed: as a restart would, but part by part, so that
//! nobody waits for a large search.
//!
//! Until it is done the search shows what it showed, takes results, and proposes nothing: what it has to go on with is not
//! known. What comes of it depends on the facts only, not on when the parts are done. Absent: who is not believed, which
//! is `domain/trust.rs`.

use std::collections::BTreeMap;
use std::mem::swap;
use std::time::Duration;

use evocache_proto::domain::{CandidateId, WorkerId};

use super::search::Search;
use evocache_domain::lease;
use evocache_domain::reference::References;
use evocache_domain::search::Breeder;
use evocache_domain::trust::Trust;

/// Decisions of the schedules of one part: some four hundred evaluations of a small model, one of the largest.
const PART: usize = 1 << 18;
/// A search of so few evaluations needs no second part, unless its model is large.
const SMALL: usize = 50;

/// What evaluations add up to so far. While a part is done it stands in the search's own place, and the search's here.
#[derive(Debug, Clone)]
pub(super) struct Anew {
    breeder: Breeder,
    device_time: Duration,
    evaluated_prompts: u64,
    trust: Trust,
    again: BTreeMap<CandidateId, Vec<CandidateId>>,
    references: References,
    /// Candidates that the breeder knows, and evaluations that are added up.
    recorded: usize,
    told: u64,
}

impl Anew {
    pub(super) fn breeder(&mut self) -> &mut Breeder {
        &mut self.breeder
    }
}

impl Search {
    /// A worker's results count no more.
    pub(super) fn disown(&mut self, worker: WorkerId) -> Result<(), String> {
        self.disowned.insert(worker);
        let Some((model, _)) = &self.bound else { return Ok(()) };
        self.anew = Some(Anew {
            breeder: Breeder::new(self.spec.clone(), model.layout.clone()).map_err(|e| e.to_string())?,
            device_time: Duration::ZERO,
            evaluated_prompts: 0,
            trust: Trust::default(),
            again: BTreeMap::new(),
            references: References::default(),
            recorded: 0,
            told: 0,
        });
        // A worker may have results in many searches: only what is done in an instant is done at once.
        if self.evaluations.len() <= SMALL { self.add_up_some() } else { Ok(()) }
    }

    /// Whether it is being added up anew.
    pub fn is_behind(&self) -> bool {
        self.anew.is_some()
    }

    /// Adds up another part.
    pub(super) fn add_up_some(&mut self) -> Result<(), String> {
        let Some(mut anew) = self.anew.take() else { return Ok(()) };
        self.exchange(&mut anew);
        let done = self.part(&mut anew);
        if !done? {
            self.exchange(&mut anew);
            self.anew = Some(anew);
            return Ok(());
        }
        let is_final = self.phase.is_final();
        let Some((_, breeder)) = &mut self.bound else { return Ok(()) };
        for (number, candidate) in (0..).zip(&self.candidates) {
            if matches!(candidate.lease, lease::State::Failed { .. }) {
                breeder.fail(CandidateId(number)).map_err(|e| e.to_string())?;
            }
        }
        if is_final {
            breeder.settle();
        }
        breeder.succeed(&anew.breeder);
        Ok(())
    }

    /// Whether that was the last one. Candidates come before the first evaluation of a later one, as they did.
    fn part(&mut self, anew: &mut Anew) -> Result<bool, String> {
        let mut decisions = 0;
        loop {
            let next = usize::try_from(anew.told).ok().and_then(|told| self.evaluations.get(told)).cloned();
            let known = next.as_ref().map_or(self.candidates.len() as u64, |evaluation| evaluation.candidate.0 + 1);
            let candidates = self.candidates.iter().enumerate().skip(anew.recorded);
            for (number, candidate) in candidates.take_while(|(number, _)| (*number as u64) < known) {
                if decisions > PART {
                    return Ok(false);
                }
                if let Some((_, breeder)) = &mut self.bound {
                    breeder.record(CandidateId(number as u64), &candidate.proposal);
                }
                decisions += candidate.proposal.schedule.steps() as usize * candidate.proposal.schedule.slots();
                anew.recorded += 1;
            }
            let Some(evaluation) = next else { return Ok(true) };
            self.add_up(anew.told, &evaluation).map_err(|e| e.to_string())?;
            anew.told += 1;
        }
    }

    fn exchange(&mut self, anew: &mut Anew) {
        if let Some((_, breeder)) = &mut self.bound {
            swap(breeder, &mut anew.breeder);
        }
        swap(&mut self.device_time, &mut anew.device_time);
        swap(&mut self.evaluated_prompts, &mut anew.evaluated_prompts);
        swap(&mut self.trust, &mut anew.trust);
        swap(&mut self.again, &mut anew.again);
        swap(&mut self.references, &mut anew.references);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use evocache_proto::domain::{
        BlockGroup, Component, Decision, Layout, Maker, PromptSet, Schedule, SearchId, SearchUid, Strategy,
    };

    use super::*;
    use crate::engine::State;
    use crate::ports::{Fact, ModelFacts, Phase};
    use evocache_domain::evaluation::Evaluation;
    use evocache_domain::lease::RetryPolicy;
    use evocache_domain::search::{Proposal, Provenance};
    use evocache_domain::time::Timestamp;
    use evocache_testkit::landscape::{Landscape, draft, spec};

    /// Large enough that three evaluations are more than a part.
    fn layout() -> Arc<Layout> {
        let components = (0..64).map(|i| Component::new(format!("c{i}"))).collect();
        Arc::new(Layout::new(vec![BlockGroup { name: "block".into(), count: 64, components }]).unwrap())
    }

    /// A search of so many evaluations, by `good` and `bad` in turn.
    fn facts(search: &SearchId, layout: &Arc<Layout>, evaluations: u64) -> Vec<Fact> {
        let uid = SearchUid::new("u").unwrap();
        let mut draft = draft(Strategy::SteadyState, &[64], 50, 0);
        draft.algorithm.seeds = false;
        let landscape = Landscape::new(layout, 64);
        let model = ModelFacts { fingerprint: "f".into(), layout: layout.clone(), metrics: vec![], cost: None };
        let mut facts = vec![
            Fact::SearchCreated { search: search.clone(), uid, spec: spec(draft), at: Timestamp(1) },
            Fact::SearchBound { search: search.clone(), model, at: Timestamp(2) },
        ];
        for number in 0..evaluations {
            let every = number as u32 + 1;
            let reuses = |step: u32| if step.is_multiple_of(every) { Decision::Compute } else { Decision::Reuse };
            let schedule = Arc::new(Schedule::from_fn(layout.clone(), 64, |step, _| reuses(step)).unwrap());
            let provenance = Arc::new(Provenance::founder(Maker::Random, "random"));
            let candidate = CandidateId(number);
            let proposal =
                Proposal { schedule: schedule.clone(), provenance: provenance.clone(), prompts: PromptSet::All };
            let evaluation = Evaluation {
                candidate,
                schedule,
                provenance,
                measurement: landscape.measure(&proposal.schedule),
                worker: WorkerId::new(if number % 2 == 0 { "good" } else { "bad" }).unwrap(),
                worker_name: "w".into(),
                device: "cpu".into(),
                started: Timestamp(3),
                finished: Timestamp(4),
                attempt: 1,
            };
            facts.push(Fact::CandidateCreated { search: search.clone(), candidate, proposal });
            facts.push(Fact::Evaluated { search: search.clone(), sequence: number, evaluation: Arc::new(evaluation) });
        }
        facts
    }

    #[test]
    fn a_large_search_is_added_up_anew_in_parts_and_is_what_a_restart_makes_of_it() {
        let (id, layout) = (SearchId::new("s").unwrap(), layout());
        let mut all = facts(&id, &layout, 14);
        let disowned = Fact::Disowned { search: id.clone(), worker: WorkerId::new("bad").unwrap() };
        let completed =
            Fact::SearchMoved { search: id.clone(), phase: Phase::Completed, reason: String::new(), at: Timestamp(5) };

        let mut live = State::default();
        // The last results come while it is added up.
        let late = all.split_off(all.len() - 4);
        all.iter().cloned().for_each(|fact| live.apply(fact).unwrap());
        let before = live.searches[&id].front().len();
        live.apply(disowned.clone()).unwrap();
        assert!(live.searches[&id].is_behind() && live.behind.contains(&id));
        assert_eq!(live.searches[&id].front().len(), before, "it shows what it showed");
        late.iter().cloned().for_each(|fact| live.apply(fact).unwrap());
        let mut parts = 1;
        while !live.add_up_some(&id).unwrap() {
            parts += 1;
        }
        assert!(parts > 1 && live.behind.is_empty(), "{parts} parts");
        live.apply(completed.clone()).unwrap();

        all.extend(late);
        all.insert(2, disowned);
        all.push(completed);
        let second = Duration::from_secs(1);
        let policy = RetryPolicy { max_attempts: 3, base: second, cap: second, ttl: second };
        let stored = State::recover(all, Timestamp(9), &policy).unwrap();
        let (ours, theirs) = (&live.searches[&id], &stored.searches[&id]);
        assert_eq!(ours.bound, theirs.bound);
        assert_eq!((ours.device_time, ours.evaluated_prompts), (theirs.device_time, theirs.evaluated_prompts));
        assert_eq!((ours.evaluations.len(), ours.evaluated_prompts), (14, 7));
    }
}
