//! The engine's state: what all facts add up to. Changed by [`State::apply`] and [`State::touch`] only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evocache_proto::domain::{CandidateId, Declaration, Epoch, RequestId, SearchId, SearchRef, WorkerId};

use super::search::{Candidate, Search};
use crate::ports::{Fact, Registration, RequestRecord};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease::{self, RetryPolicy};
use evocache_domain::search::Breeder;
use evocache_domain::time::Timestamp;

/// A registered worker.
#[derive(Debug, Clone)]
pub struct Worker {
    /// What it declared, and when.
    pub registration: Registration,
    /// What it has in common with all that declared the same.
    pub class: Arc<str>,
    /// Gets no more work.
    pub draining: bool,
    /// Why its results are not believed, if they are not. It gets no more work.
    pub quarantine: Option<String>,
    /// Last heard of. After a restart, what the store tells of it: its registration, its last grant or its last result.
    pub seen: Timestamp,
    /// Candidates that it has.
    pub leases: usize,
    /// Evaluations accepted from it, of the searches that there are.
    pub completed: u64,
    /// Failures that it reported since the coordinator started. Not stored.
    pub failed: u64,
}

/// Changes that are not stored: a restart may forget them.
#[derive(Debug, Clone, PartialEq)]
pub enum Touch {
    /// A worker was heard of.
    Seen {
        /// Which.
        worker: WorkerId,
        /// When.
        at: Timestamp,
    },
    /// A lease was renewed.
    Renewed {
        /// Of which search.
        search: SearchId,
        /// Which candidate.
        candidate: CandidateId,
        /// The state with the later deadline.
        state: lease::State,
    },
    /// A worker reported a failure.
    WorkerFailed {
        /// Which.
        worker: WorkerId,
    },
}

/// A fact that does not fit the state: the store is damaged, or a decision was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Inconsistent(pub String);

/// Everything the engine knows.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// All searches.
    pub searches: BTreeMap<SearchId, Search>,
    /// Deleted searches of which the store still has records. No other may have their ids.
    pub deleted: BTreeSet<SearchId>,
    /// Searches that are added up anew.
    pub behind: BTreeSet<SearchId>,
    /// All registered workers.
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Answered calls.
    pub requests: BTreeMap<RequestId, RequestRecord>,
    /// When it was made of what is stored: nobody was silent towards this coordinator before.
    pub recovered: Timestamp,
    /// The last epoch of any grant that is remembered.
    pub last_epoch: Epoch,
}

/// Workers of one class can serve the same searches.
fn class(d: &Declaration) -> Arc<str> {
    let metrics: Vec<_> = d.metrics.iter().map(|m| (&m.name, m.direction)).collect();
    let place = (&d.device, d.memory_bytes, &d.labels);
    format!("{:?}", (&d.model, &d.fingerprint, d.layout.to_string(), (d.forecast, d.profiles, d.grids), metrics, place))
        .into()
}

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
        while let Some(search) = state.behind.first().cloned() {
            state.add_up_some(&search)?;
        }
        for search in state.searches.values_mut() {
            for candidate in &mut search.candidates {
                candidate.lease = std::mem::take(&mut candidate.lease).after_restart(now, policy);
            }
            if let Some((_, breeder)) = &mut search.bound {
                breeder.resume();
            }
        }
        Ok(state)
    }

    /// The epoch of the next grant: above all before it, those of deleted searches, of a store that was restored from an
    /// older backup, and of other coordinators' lives included, since it follows the clock where that is ahead.
    pub(super) fn next_epoch(&self, now: Timestamp) -> Epoch {
        const PER_MILLISECOND: u64 = 1000;
        Epoch(self.last_epoch.0.saturating_add(1).max(now.0.saturating_mul(PER_MILLISECOND)))
    }

    fn search_mut(&mut self, id: &SearchId) -> Result<&mut Search, Inconsistent> {
        self.searches.get_mut(id).ok_or_else(|| Inconsistent(format!("no search '{id}'")))
    }

    /// Applies a fact.
    pub fn apply(&mut self, fact: Fact) -> Result<(), Inconsistent> {
        match fact {
            Fact::WorkerRegistered { worker, registration } => {
                let class = class(&registration.declaration);
                let entry = Worker {
                    class,
                    draining: false,
                    quarantine: None,
                    seen: registration.at,
                    registration,
                    leases: 0,
                    completed: 0,
                    failed: 0,
                };
                self.workers.insert(worker, entry);
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
            Fact::Disowned { search, worker } => {
                let disowned = self.search_mut(&search)?.disown(worker);
                self.added_up(search, disowned)?;
            }
            Fact::WorkerForgotten { worker } => drop(self.workers.remove(&worker)),
            Fact::SearchCreated { search, uid, spec, at } => {
                let reference = SearchRef { id: search.clone(), uid };
                self.searches.insert(search, Search::new(reference, spec, at));
            }
            Fact::SearchBound { search, model, at } => {
                let search = self.search_mut(&search)?;
                let breeder = Breeder::new(search.spec.clone(), model.layout.clone())
                    .map_err(|e| Inconsistent(format!("search '{}': {e}", search.id)))?;
                search.bound = Some((model, breeder));
                search.started = Some(at);
            }
            Fact::SearchMoved { search, phase, reason, at } => {
                let search = self.search_mut(&search)?;
                if let Some((_, breeder)) = &mut search.bound {
                    match (search.phase.is_final(), phase.is_final()) {
                        (_, true) => breeder.settle(),
                        // Its adviser was dismissed when it ended.
                        (true, false) => breeder.resume(),
                        (false, false) => {}
                    }
                }
                search.phase = phase;
                search.reason = reason;
                search.moved = at;
                search.ended = phase.is_final().then_some(at);
            }
            Fact::SearchExtended { search, budget, rested, settled } => {
                let search = self.search_mut(&search)?;
                let extended = search.extend(budget, rested, settled);
                extended.map_err(|problem| Inconsistent(format!("search '{}', extended: {problem}", search.id)))?;
            }
            Fact::SearchDeleted { search } => {
                // Its evaluations are no longer stored: without them, a restart counts as it does here.
                for evaluation in self.searches.remove(&search).into_iter().flat_map(|search| search.evaluations) {
                    if let Some(worker) = self.workers.get_mut(&evaluation.worker) {
                        worker.completed = worker.completed.saturating_sub(1);
                    }
                }
                self.deleted.insert(search);
            }
            Fact::SearchCleared { search } => drop(self.deleted.remove(&search)),
            Fact::CandidateCreated { search, candidate, proposal } => {
                let search = self.search_mut(&search)?;
                if candidate.0 != search.candidates.len() as u64 {
                    let problem = format!("search '{}': candidate {candidate} out of order", search.id);
                    return Err(Inconsistent(problem));
                }
                if let Some((_, breeder)) = &mut search.bound {
                    breeder.record(candidate, &proposal);
                }
                let lease = lease::State::new();
                search.candidates.push(Candidate { proposal, lease, granted: Timestamp(0), evaluation: None });
                search.index(candidate);
            }
            Fact::LeaseMoved { search, candidate, state, granted } => {
                self.last_epoch = self.last_epoch.max(state.last_epoch().unwrap_or_default());
                let search = self.search_mut(&search)?;
                let failed = matches!(state, lease::State::Failed { .. });
                let i = usize::try_from(candidate.0).unwrap_or(usize::MAX);
                let Some(entry) = search.candidates.get_mut(i) else {
                    return Err(Inconsistent(format!("search '{}': no candidate {candidate}", search.id)));
                };
                let (before, after) = (entry.lease.holder().cloned(), state.holder().cloned());
                entry.lease = state;
                entry.granted = granted;
                search.index(candidate);
                if failed {
                    search.failed += 1;
                    if let Some((_, breeder)) = &mut search.bound {
                        let told = breeder.fail(candidate);
                        told.map_err(|e| Inconsistent(format!("search '{}', candidate {candidate}: {e}", search.id)))?;
                    }
                }
                if let Some(worker) = before.and_then(|id| self.workers.get_mut(&id)) {
                    worker.leases = worker.leases.saturating_sub(1);
                }
                if let Some(worker) = after.and_then(|id| self.workers.get_mut(&id)) {
                    worker.leases += 1;
                    worker.seen = worker.seen.max(granted);
                }
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

    /// Adds up another part of a search that is added up anew. Says whether that was the last one.
    pub fn add_up_some(&mut self, id: &SearchId) -> Result<bool, Inconsistent> {
        let Some(search) = self.searches.get_mut(id) else {
            // Deleted.
            self.behind.remove(id);
            return Ok(true);
        };
        let added = search.add_up_some();
        self.added_up(id.clone(), added)?;
        Ok(!self.behind.contains(id))
    }

    fn added_up(&mut self, id: SearchId, added: Result<(), String>) -> Result<(), Inconsistent> {
        added.map_err(|e| Inconsistent(format!("search '{id}', without a worker's results: {e}")))?;
        match self.searches.get(&id).is_some_and(Search::is_behind) {
            true => self.behind.insert(id),
            false => self.behind.remove(&id),
        };
        Ok(())
    }

    /// Applies a change that is not stored.
    pub fn touch(&mut self, touch: Touch) {
        match touch {
            Touch::Seen { worker, at } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.seen = at;
                }
            }
            Touch::Renewed { search, candidate, state } => {
                let search = self.searches.get_mut(&search);
                let index = usize::try_from(candidate.0).unwrap_or(usize::MAX);
                if let Some(entry) = search.and_then(|s| s.candidates.get_mut(index)) {
                    entry.lease = state;
                }
            }
            Touch::WorkerFailed { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.failed += 1;
                }
            }
        }
    }
}

impl Search {
    fn evaluated(&mut self, sequence: u64, evaluation: Arc<Evaluation>) -> Result<(), Inconsistent> {
        let (id, candidate) = (self.id.clone(), evaluation.candidate);
        if sequence != self.evaluations.len() as u64 {
            return Err(Inconsistent(format!("search '{id}': evaluation {sequence} out of order")));
        }
        let index = usize::try_from(candidate.0).unwrap_or(usize::MAX);
        let entry = self.candidates.get_mut(index).filter(|c| c.evaluation.is_none());
        let Some(entry) = entry else {
            return Err(Inconsistent(format!("search '{id}': candidate {candidate} is unknown or evaluated already")));
        };
        entry.evaluation = Some(self.evaluations.len());
        // Else its turn comes.
        if !self.is_behind() {
            let added = self.add_up(sequence, &evaluation);
            added.map_err(|e| Inconsistent(format!("search '{id}', candidate {candidate}: {e}")))?;
        }
        // Pictures stay in the store: in memory they would outweigh everything else.
        let mut evaluation = evaluation;
        if !evaluation.measurement.thumbnails.is_empty() {
            Arc::make_mut(&mut evaluation).measurement.thumbnails = vec![];
        }
        self.evaluations.push(evaluation);
        Ok(())
    }
}
