//! Excludes a worker's results from a search: rebuilds totals and breeder without them, as a restart would, but in parts, so
//! that a large search delays nobody.
//!
//! Until the rebuild is done the search shows its old numbers, accepts results, and proposes nothing, because it does not
//! know its front. The outcome depends on the facts only, not on when the parts are done. Which worker to exclude,
//! `trust` in the domain says.

use std::mem::swap;

use evocache_proto::domain::{CandidateId, WorkerId};

use super::search::Search;
use super::totals::{Rebuild, Totals};
use evocache_domain::lease;
use evocache_domain::search::Breeder;

/// Decisions in the schedules of one part: some four hundred evaluations of a small model, one of the largest.
const PART: usize = 1 << 18;
/// A search with at most this many evaluations is rebuilt at once, unless its model is large.
const SMALL: usize = 50;

impl Search {
    /// Excludes a worker's results.
    pub(super) fn exclude(&mut self, worker: WorkerId) -> Result<(), String> {
        self.excluded.insert(worker);
        let Some(model) = self.model() else { return Ok(()) };
        let breeder = Breeder::new(self.spec.clone(), model.layout.clone()).map_err(|e| e.to_string())?;
        self.rebuild = Some(Rebuild { breeder, totals: Totals::default(), recorded: 0, told: 0 });
        // The worker may have results in many searches, so only small ones are rebuilt here.
        if self.evaluations.len() <= SMALL { self.rebuild_some() } else { Ok(()) }
    }

    /// Does another part of the rebuild.
    pub(super) fn rebuild_some(&mut self) -> Result<(), String> {
        let Some(mut rebuild) = self.rebuild.take() else { return Ok(()) };
        self.exchange(&mut rebuild);
        let is_done = self.rebuild_part(&mut rebuild)?;
        if !is_done {
            self.exchange(&mut rebuild);
            self.rebuild = Some(rebuild);
            return Ok(());
        }
        let is_final = self.phase.is_final();
        let Some(bound) = &mut self.bound else { return Ok(()) };
        for (number, candidate) in (0..).zip(&self.candidates) {
            if matches!(candidate.lease, lease::State::Failed { .. }) {
                bound.breeder.fail(CandidateId(number)).map_err(|e| e.to_string())?;
            }
        }
        if is_final {
            bound.breeder.rescore();
        }
        bound.breeder.take_over_from(&rebuild.breeder);
        Ok(())
    }

    /// Returns whether this was the last part. Each candidate is recorded before the first evaluation of a later one, as
    /// it was originally.
    fn rebuild_part(&mut self, rebuild: &mut Rebuild) -> Result<bool, String> {
        let mut decisions = 0;
        loop {
            let next = usize::try_from(rebuild.told).ok().and_then(|told| self.evaluations.get(told)).cloned();
            let known = next.as_ref().map_or(self.candidates.len() as u64, |evaluation| evaluation.candidate.0 + 1);
            let candidates = self.candidates.iter().enumerate().skip(rebuild.recorded);
            for (number, candidate) in candidates.take_while(|(number, _)| (*number as u64) < known) {
                if decisions > PART {
                    return Ok(false);
                }
                if let Some(bound) = &mut self.bound {
                    bound.breeder.record(CandidateId(number as u64), &candidate.proposal);
                }
                decisions += candidate.proposal.schedule.steps() as usize * candidate.proposal.schedule.slots();
                rebuild.recorded += 1;
            }
            let Some(evaluation) = next else { return Ok(true) };
            self.add_up(rebuild.told, &evaluation).map_err(|e| e.to_string())?;
            rebuild.told += 1;
        }
    }

    fn exchange(&mut self, rebuild: &mut Rebuild) {
        if let Some(breeder) = self.breeder_mut() {
            swap(breeder, &mut rebuild.breeder);
        }
        swap(&mut self.totals, &mut rebuild.totals);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use evocache_proto::domain::{
        BlockGroup, Component, Decision, Layout, Maker, PromptSet, Schedule, SearchId, SearchUid, Strategy,
    };

    use super::*;
    use crate::engine::State;
    use crate::ports::{Fact, ModelFacts, SearchState};
    use evocache_domain::evaluation::Evaluation;
    use evocache_domain::lease::RetryPolicy;
    use evocache_domain::search::{Proposal, Provenance};
    use evocache_domain::time::Timestamp;
    use evocache_testkit::landscape::{Landscape, draft, spec};

    /// Large enough that three evaluations exceed a part.
    fn layout() -> Arc<Layout> {
        let components = (0..64).map(|i| Component::new(format!("c{i}"))).collect();
        Arc::new(Layout::new(vec![BlockGroup { name: "block".into(), count: 64, components }]).unwrap())
    }

    /// A search with this many evaluations, alternately by `good` and `bad`.
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
    fn a_large_search_is_rebuilt_in_parts_and_equals_what_a_restart_makes_of_it() {
        let (id, layout) = (SearchId::new("s").unwrap(), layout());
        let mut all = facts(&id, &layout, 14);
        let excluded = Fact::WorkerExcluded { search: id.clone(), worker: WorkerId::new("bad").unwrap() };
        let completed = Fact::SearchMoved {
            search: id.clone(),
            phase: SearchState::Completed,
            reason: String::new(),
            at: Timestamp(5),
        };

        let mut live = State::default();
        // The last results come during the rebuild.
        let late = all.split_off(all.len() - 4);
        all.iter().cloned().for_each(|fact| live.apply(fact).unwrap());
        let before = live.searches[&id].front().len();
        live.apply(excluded.clone()).unwrap();
        assert!(live.searches[&id].is_rebuilding() && live.rebuilding.contains(&id));
        assert_eq!(live.searches[&id].front().len(), before, "it shows its old front");
        late.iter().cloned().for_each(|fact| live.apply(fact).unwrap());
        let mut parts = 1;
        while !live.rebuild_some(&id).unwrap() {
            parts += 1;
        }
        assert!(parts > 1 && live.rebuilding.is_empty(), "{parts} parts");
        live.apply(completed.clone()).unwrap();

        all.extend(late);
        all.insert(2, excluded);
        all.push(completed);
        let second = Duration::from_secs(1);
        let policy = RetryPolicy { max_attempts: 3, base: second, cap: second, ttl: second };
        let stored = State::recover(all, Timestamp(9), &policy).unwrap();
        let (ours, theirs) = (&live.searches[&id], &stored.searches[&id]);
        assert_eq!(ours.bound, theirs.bound);
        assert_eq!(ours.totals.device_time, theirs.totals.device_time);
        assert_eq!((ours.evaluations.len(), ours.totals.evaluated_prompts), (14, 7));
        assert_eq!(theirs.totals.evaluated_prompts, 7);
    }
}
