//! Applies facts to the state, live and in recovery alike: the same facts give the same state.

use evocache_proto::domain::{CandidateId, SearchId, SearchRef};

use super::bound::Bound;
use super::candidate::Candidate;
use super::inconsistent::Inconsistent;
use super::root::State;
use super::search::Search;
use super::worker::Worker;
use crate::ports::Fact;
use evocache_domain::lease::{self, RetryPolicy};
use evocache_domain::search::Proposal;
use evocache_domain::time::Timestamp;

impl State {
    /// The state that stored facts add up to, for a coordinator that starts at `now`.
    pub fn recover(
        facts: impl IntoIterator<Item = Fact>,
        now: Timestamp,
        policy: &RetryPolicy,
    ) -> Result<Self, Inconsistent> {
        let mut state = Self { recovered: now, ..Self::default() };
        for fact in facts {
            state.apply(fact)?;
        }
        while let Some(search) = state.rebuilding.first().cloned() {
            state.rebuild_some(&search)?;
        }
        for search in state.searches.values_mut() {
            for candidate in &mut search.candidates {
                candidate.lease = std::mem::take(&mut candidate.lease).after_restart(now, policy);
            }
            if let Some(breeder) = search.breeder_mut() {
                breeder.restart_planner();
            }
        }
        Ok(state)
    }

    /// Applies a fact.
    pub fn apply(&mut self, fact: Fact) -> Result<(), Inconsistent> {
        match fact {
            Fact::WorkerRegistered { worker, registration } => {
                self.workers.insert(worker, Worker::new(registration));
            }
            Fact::WorkerDraining { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.draining = true;
                }
            }
            Fact::WorkerQuarantined { worker, reason, .. } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.quarantine = Some(reason);
                }
            }
            Fact::WorkerExcluded { search, worker } => {
                let excluded = self.search_mut(&search)?.exclude(worker);
                self.note_rebuild(search, excluded)?;
            }
            Fact::WorkerForgotten { worker } => drop(self.workers.remove(&worker)),
            Fact::SearchCreated { search, uid, spec, at } => {
                let reference = SearchRef { id: search.clone(), uid };
                self.searches.insert(search, Search::new(reference, spec, at));
            }
            Fact::SearchBound { search, model, at } => {
                let search = self.search_mut(&search)?;
                let bound = Bound::new(search.spec.clone(), model);
                search.bound = Some(bound.map_err(|e| Inconsistent(format!("search '{}': {e}", search.id)))?);
                search.started = Some(at);
            }
            Fact::SearchMoved { search, phase, reason, at } => self.search_mut(&search)?.enter(phase, reason, at),
            Fact::SearchExtended { search, budget, rested, settled } => {
                let search = self.search_mut(&search)?;
                let extended = search.extend(budget, rested, settled);
                extended.map_err(|problem| Inconsistent(format!("search '{}', extended: {problem}", search.id)))?;
            }
            Fact::SearchDeleted { search } => self.delete(search),
            Fact::SearchCleared { search } => drop(self.deleted.remove(&search)),
            Fact::CandidateCreated { search, candidate, proposal } => {
                self.search_mut(&search)?.create(candidate, proposal)?;
            }
            Fact::LeaseMoved { search, candidate, state, granted } => {
                self.move_lease(&search, candidate, state, granted)?;
            }
            Fact::Evaluated { search, sequence, evaluation } => {
                if let Some(worker) = self.workers.get_mut(&evaluation.worker) {
                    worker.completed += 1;
                    worker.seen = worker.seen.max(evaluation.finished);
                }
                self.search_mut(&search)?.evaluated(sequence, evaluation)?;
            }
            Fact::RequestAnswered { request, record } => drop(self.requests.insert(request, record)),
            Fact::RequestForgotten { request } => drop(self.requests.remove(&request)),
        }
        Ok(())
    }

    fn delete(&mut self, search: SearchId) {
        // Its evaluations are no longer stored, so a restart would not count them.
        for evaluation in self.searches.remove(&search).into_iter().flat_map(|search| search.evaluations) {
            if let Some(worker) = self.workers.get_mut(&evaluation.worker) {
                worker.completed = worker.completed.saturating_sub(1);
            }
        }
        self.deleted.insert(search);
    }

    fn move_lease(
        &mut self,
        search: &SearchId,
        candidate: CandidateId,
        state: lease::State,
        granted: Timestamp,
    ) -> Result<(), Inconsistent> {
        self.last_epoch = self.last_epoch.max(state.last_epoch().unwrap_or_default());
        let after = state.holder().cloned();
        let before = self.search_mut(search)?.move_lease(candidate, state, granted)?.holder().cloned();
        if let Some(worker) = before.and_then(|id| self.workers.get_mut(&id)) {
            worker.leases = worker.leases.saturating_sub(1);
        }
        if let Some(worker) = after.and_then(|id| self.workers.get_mut(&id)) {
            worker.leases += 1;
            worker.seen = worker.seen.max(granted);
        }
        Ok(())
    }
}

impl Search {
    fn create(&mut self, candidate: CandidateId, proposal: Proposal) -> Result<(), Inconsistent> {
        if candidate.0 != self.candidates.len() as u64 {
            return Err(Inconsistent(format!("search '{}': candidate {candidate} out of order", self.id)));
        }
        if let Some(breeder) = self.breeder_mut() {
            breeder.record(candidate, &proposal);
        }
        let lease = lease::State::new();
        self.candidates.push(Candidate { proposal, lease, granted: Timestamp(0), evaluation: None });
        self.index(candidate);
        Ok(())
    }

    /// Gives a candidate's lease another state, and returns the one before.
    fn move_lease(
        &mut self,
        candidate: CandidateId,
        state: lease::State,
        granted: Timestamp,
    ) -> Result<lease::State, Inconsistent> {
        let failed = matches!(state, lease::State::Failed { .. });
        let Some(entry) = self.candidate_mut(candidate) else {
            return Err(Inconsistent(format!("search '{}': no candidate {candidate}", self.id)));
        };
        let before = std::mem::replace(&mut entry.lease, state);
        entry.granted = granted;
        self.index(candidate);
        if failed {
            self.failed += 1;
            let told = self.breeder_mut().map_or(Ok(()), |breeder| breeder.fail(candidate));
            told.map_err(|e| Inconsistent(format!("search '{}', candidate {candidate}: {e}", self.id)))?;
        }
        Ok(before)
    }
}
