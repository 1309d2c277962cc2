//! One search in memory: what its facts add up to. Taking in results is `results.rs`, excluding a worker `rebuild.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{Budget, CandidateId, PromptSet, SearchId, SearchRef, SearchSpec, SearchUid, WorkerId};

use super::bound::Bound;
use super::candidate::Candidate;
use super::totals::{Rebuild, Totals};
use crate::ports::{ModelFacts, SearchState};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease;
use evocache_domain::search::Breeder;
use evocache_domain::time::Timestamp;

/// The remaining time is estimated from the last so many results.
const RECENT: usize = 32;

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    /// The id that people chose.
    pub id: SearchId,
    /// Distinguishes the search from others that had or will have the same id.
    pub uid: SearchUid,
    /// The specification, with the present budget.
    pub spec: Arc<SearchSpec>,
    /// The phase that the search is in.
    pub phase: SearchState,
    /// Why it is in that phase, as text for people.
    pub reason: String,
    /// When it was created.
    pub created: Timestamp,
    /// When its first worker joined.
    pub started: Option<Timestamp>,
    /// When it entered its phase.
    pub moved: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Total time that it rested as completed before it was extended; not counted as wall time.
    pub rested: Duration,
    /// The number of evaluations at each earlier completion: the breeder scored everything anew then.
    pub settled: Vec<u64>,
    /// The model that the first worker declared, and the breeder for it.
    pub bound: Option<Bound>,
    /// All candidates, indexed by candidate id.
    pub candidates: Vec<Candidate>,
    /// All results without thumbnails, in the order in which they came.
    pub evaluations: Vec<Arc<Evaluation>>,
    /// Candidates that wait for a worker.
    pub pending: BTreeSet<CandidateId>,
    /// Candidates that a worker holds.
    pub leased: BTreeSet<CandidateId>,
    /// Prompts of the candidates that wait or are leased.
    pub open_prompts: u64,
    /// Number of candidates that failed.
    pub failed: u64,
    /// Workers whose results are excluded.
    pub excluded: BTreeSet<WorkerId>,
    /// What the evaluations add up to.
    pub totals: Totals,
    /// The rebuild of totals and breeder after a worker was excluded, while it lasts.
    pub(super) rebuild: Option<Rebuild>,
}

impl Search {
    /// A search that was just created.
    pub fn new(SearchRef { id, uid }: SearchRef, spec: Arc<SearchSpec>, created: Timestamp) -> Self {
        Self {
            id,
            uid,
            spec,
            phase: SearchState::Pending,
            reason: String::new(),
            created,
            moved: created,
            started: None,
            ended: None,
            rested: Duration::ZERO,
            settled: vec![],
            bound: None,
            candidates: vec![],
            evaluations: vec![],
            pending: BTreeSet::new(),
            leased: BTreeSet::new(),
            open_prompts: 0,
            failed: 0,
            excluded: BTreeSet::new(),
            totals: Totals::default(),
            rebuild: None,
        }
    }

    /// Id and uid: names this search for good.
    pub fn reference(&self) -> SearchRef {
        SearchRef { id: self.id.clone(), uid: self.uid.clone() }
    }

    /// Whether this names the search, and not another one with the same id.
    pub fn is(&self, reference: &SearchRef) -> bool {
        self.id == reference.id && self.uid == reference.uid
    }

    /// The model that the search is bound to.
    pub fn model(&self) -> Option<&ModelFacts> {
        self.bound.as_ref().map(|bound| &bound.model)
    }

    /// The breeder of a bound search.
    pub fn breeder(&self) -> Option<&Breeder> {
        self.bound.as_ref().map(|bound| &bound.breeder)
    }

    pub(in crate::engine) fn breeder_mut(&mut self) -> Option<&mut Breeder> {
        self.bound.as_mut().map(|bound| &mut bound.breeder)
    }

    /// Whether the search may grant leases: not paused, not ended.
    pub(in crate::engine) fn is_active(&self) -> bool {
        matches!(self.phase, SearchState::Pending | SearchState::Running)
    }

    /// The phase of this search when it is active.
    pub(in crate::engine) fn active_phase(&self) -> SearchState {
        if self.bound.is_some() { SearchState::Running } else { SearchState::Pending }
    }

    /// Whether totals and breeder are being rebuilt.
    pub fn is_rebuilding(&self) -> bool {
        self.rebuild.is_some()
    }

    /// The candidate with this id.
    pub fn candidate(&self, id: CandidateId) -> Option<&Candidate> {
        usize::try_from(id.0).ok().and_then(|i| self.candidates.get(i))
    }

    pub(super) fn candidate_mut(&mut self, id: CandidateId) -> Option<&mut Candidate> {
        usize::try_from(id.0).ok().and_then(|i| self.candidates.get_mut(i))
    }

    /// The evaluation of a candidate.
    pub fn evaluation(&self, id: CandidateId) -> Option<&Arc<Evaluation>> {
        self.candidate(id)?.evaluation.map(|i| &self.evaluations[i])
    }

    /// The evaluation of the uncached run, or of its repeat if that was excluded.
    pub fn baseline(&self) -> Option<&Arc<Evaluation>> {
        let first = CandidateId(0);
        self.evaluation(self.breeder().map_or(first, |breeder| breeder.stand_in(first)))
    }

    /// The evaluations of the front, fastest first.
    pub fn front(&self) -> Vec<&Arc<Evaluation>> {
        let Some(breeder) = self.breeder() else { return vec![] };
        let mut front: Vec<_> = breeder.front().members().iter().filter_map(|m| self.evaluation(m.candidate)).collect();
        front.sort_by(|a, b| {
            let estimated = |e: &Evaluation| breeder.latency_ratio(e.candidate).map(|latency| latency.value);
            let ratio = |e: &Evaluation| estimated(e).unwrap_or_else(|| e.measurement.latency_ratio());
            ratio(a).total_cmp(&ratio(b)).then(a.candidate.cmp(&b.candidate))
        });
        front
    }

    /// Estimated time to the end of the evaluation budget, at the pace of the last results. `None` if unknown.
    ///
    /// Only results since the search entered its phase count: its pace before a pause says nothing about now.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        let budget = self.spec.budget.evaluations?;
        let recent = self.evaluations.iter().rev().take(RECENT + 1).take_while(|e| e.finished >= self.moved);
        let recent: Vec<&Arc<Evaluation>> = recent.collect();
        // If there are more, the oldest only marks the start of the others.
        let (since, counted) = match recent.split_last() {
            Some((oldest, others)) if recent.len() > RECENT => (oldest.finished, others),
            Some(_) | None => (self.moved, &recent[..]),
        };
        let done: usize = counted.iter().map(|e| self.prompts_of(e.candidate)).sum();
        if self.phase != SearchState::Running || done == 0 {
            return None;
        }
        let left = (budget as f64 - self.spent()).max(0.0) * self.spec.prompts.len() as f64;
        // Too long for a `Duration` counts as unknown.
        Duration::try_from_secs_f64(now.since(since).as_secs_f64() * (left / done as f64)).ok()
    }

    /// Time since the start as the budget counts it: until the end, without rests between completion and extension.
    pub(in crate::engine) fn wall_time(&self, now: Timestamp) -> Duration {
        let until = self.ended.unwrap_or(now);
        self.started.map_or(Duration::ZERO, |started| until.since(started).saturating_sub(self.rested))
    }

    /// Number of results since the hypervolume last grew; 0 unless the budget limits it.
    pub(in crate::engine) fn stagnant(&self) -> u64 {
        self.breeder().map_or(0, Breeder::stagnant)
    }

    /// Evaluations as the budget counts them: one on part of the prompts counts as that fraction.
    pub fn spent(&self) -> f64 {
        self.totals.evaluated_prompts as f64 / self.spec.prompts.len() as f64
    }

    /// Whether the evaluation budget is used up once `more` prompts are evaluated.
    pub(in crate::engine) fn is_spent(&self, more: u64) -> bool {
        let all = self.spec.prompts.len() as u64;
        self.spec
            .budget
            .evaluations
            .is_some_and(|n| self.totals.evaluated_prompts.saturating_add(more) >= n.saturating_mul(all))
    }

    /// Number of prompts that a candidate is evaluated on.
    pub(in crate::engine) fn prompts_of(&self, candidate: CandidateId) -> usize {
        self.candidate(candidate).map_or(PromptSet::All, |c| c.proposal.prompts).count(self.spec.prompts.len())
    }

    /// Whether no other worker has measured a candidate or a repeat of it.
    pub(in crate::engine) fn only_by(&self, worker: &WorkerId, candidate: CandidateId) -> bool {
        let by = |id: CandidateId| self.evaluation(id).is_none_or(|e| &e.worker == worker);
        by(candidate) && self.totals.repeats.get(&candidate).is_none_or(|ids| ids.iter().all(|&id| by(id)))
    }

    /// Whether a candidate was measured by a worker whose measurements no other worker has confirmed yet.
    pub(in crate::engine) fn is_unproven(&self, candidate: CandidateId) -> bool {
        self.evaluation(candidate).is_some_and(|e| !self.totals.trust.is_proven(&e.worker))
    }

    /// Puts a candidate into the set that its lease belongs to.
    pub(super) fn index(&mut self, id: CandidateId) {
        let was_pending = self.pending.remove(&id);
        let was_leased = self.leased.remove(&id);
        let prompts = self.prompts_of(id) as u64;
        if was_pending || was_leased {
            self.open_prompts -= prompts;
        }
        let open = match self.candidate(id).map(|c| &c.lease) {
            Some(lease::State::Pending { .. }) => self.pending.insert(id),
            Some(lease::State::Leased { .. }) => self.leased.insert(id),
            Some(lease::State::Done { .. } | lease::State::Failed { .. } | lease::State::Cancelled { .. }) | None => {
                false
            }
        };
        if open {
            self.open_prompts += prompts;
        }
    }

    /// Moves the search to another phase.
    pub(super) fn enter(&mut self, phase: SearchState, reason: String, at: Timestamp) {
        let was_final = self.phase.is_final();
        if let Some(breeder) = self.breeder_mut() {
            match (was_final, phase.is_final()) {
                (_, true) => breeder.rescore(),
                // The end of the search dismissed its planner; a new one gets all inputs again.
                (true, false) => breeder.restart_planner(),
                (false, false) => {}
            }
        }
        self.phase = phase;
        self.reason = reason;
        self.moved = at;
        self.ended = phase.is_final().then_some(at);
    }

    /// Sets another budget.
    pub(super) fn extend(&mut self, budget: Budget, rested: Duration, settled: Vec<u64>) -> Result<(), String> {
        self.spec = Arc::new(self.spec.with_budget(budget).map_err(|e| e.to_string())?);
        (self.rested, self.settled) = (rested, settled);
        let present = self.bound.iter_mut().map(|bound| &mut bound.breeder);
        let rebuilt = self.rebuild.iter_mut().map(|rebuild| &mut rebuild.breeder);
        present.chain(rebuilt).for_each(|breeder| breeder.extend(self.spec.clone()));
        Ok(())
    }
}
