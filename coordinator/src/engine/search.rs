//! One search in memory: what its facts add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{
    Budget, CandidateId, Declaration, PromptSet, SearchId, SearchRef, SearchSpec, SearchUid, WorkerId,
};

use super::anew::Anew;
use crate::ports::{ModelFacts, Phase};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease;
use evocache_domain::reference::References;
use evocache_domain::search::{Breeder, Proposal, TellError};
use evocache_domain::time::Timestamp;
use evocache_domain::trust::Trust;

/// Results by which the pace is told.
const LATELY: usize = 32;

/// A candidate and the state of its lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// What to run, and where it comes from.
    pub proposal: Proposal,
    /// Who has it.
    pub lease: lease::State,
    /// When the current or last grant was made.
    pub granted: Timestamp,
    /// Its evaluation, as an index into [`Search::evaluations`].
    pub evaluation: Option<usize>,
}

/// A search.
#[derive(Debug, Clone)]
pub struct Search {
    /// Its id.
    pub id: SearchId,
    /// What tells it from others of that id.
    pub uid: SearchUid,
    /// What it is for.
    pub spec: Arc<SearchSpec>,
    /// Where it stands.
    pub phase: Phase,
    /// Why it is there, for people.
    pub reason: String,
    /// When it was created.
    pub created: Timestamp,
    /// When the first worker joined.
    pub started: Option<Timestamp>,
    /// When it was last moved into another phase, or created.
    pub moved: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How long it had completed before it was extended, all together.
    pub rested: Duration,
    /// After how many evaluations it had completed before it was extended, each time.
    pub settled: Vec<u64>,
    /// What the first worker declared, and the breeder made for it.
    pub bound: Option<(ModelFacts, Breeder)>,
    /// All candidates; the index is the candidate's id.
    pub candidates: Vec<Candidate>,
    /// All results without thumbnails, in the order in which they came.
    pub evaluations: Vec<Arc<Evaluation>>,
    /// Candidates that wait for a worker.
    pub pending: BTreeSet<CandidateId>,
    /// Candidates that a worker has.
    pub leased: BTreeSet<CandidateId>,
    /// The uncached latencies of its evaluations.
    pub references: References,
    /// Whom to believe.
    pub trust: Trust,
    /// Workers whose results count no more.
    pub disowned: BTreeSet<WorkerId>,
    /// Evaluations of schedules that were measured before, by the candidate that they repeat.
    pub again: BTreeMap<CandidateId, Vec<CandidateId>>,
    /// Candidates given up.
    pub failed: u64,
    /// Sum of the time that devices were busy.
    pub device_time: Duration,
    /// Prompts of all evaluations.
    pub evaluated_prompts: u64,
    /// Prompts of the candidates that wait or are leased.
    pub open_prompts: u64,
    /// All that evaluations add up to, while it is added up anew.
    pub(super) anew: Option<Anew>,
}

impl Search {
    /// A search that was just created.
    pub fn new(SearchRef { id, uid }: SearchRef, spec: Arc<SearchSpec>, created: Timestamp) -> Self {
        Self {
            id,
            uid,
            spec,
            phase: Phase::Pending,
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
            references: References::default(),
            trust: Trust::default(),
            disowned: BTreeSet::new(),
            again: BTreeMap::new(),
            failed: 0,
            device_time: Duration::ZERO,
            evaluated_prompts: 0,
            open_prompts: 0,
            anew: None,
        }
    }

    /// Names it for good.
    pub fn reference(&self) -> SearchRef {
        SearchRef { id: self.id.clone(), uid: self.uid.clone() }
    }

    /// Whether this names it, and not another one with its id.
    pub fn is(&self, reference: &SearchRef) -> bool {
        self.id == reference.id && self.uid == reference.uid
    }

    /// The candidate with this id.
    pub fn candidate(&self, id: CandidateId) -> Option<&Candidate> {
        usize::try_from(id.0).ok().and_then(|i| self.candidates.get(i))
    }

    /// The evaluation of a candidate.
    pub fn evaluation(&self, id: CandidateId) -> Option<&Arc<Evaluation>> {
        self.candidate(id)?.evaluation.map(|i| &self.evaluations[i])
    }

    /// The uncached run's evaluation.
    pub fn baseline(&self) -> Option<&Arc<Evaluation>> {
        let first = CandidateId(0);
        self.evaluation(self.bound.as_ref().map_or(first, |(_, breeder)| breeder.stand_in(first)))
    }

    /// The evaluations of the front, fastest first.
    pub fn front(&self) -> Vec<&Arc<Evaluation>> {
        let Some((_, breeder)) = &self.bound else { return vec![] };
        let mut front: Vec<_> = breeder.front().members().iter().filter_map(|m| self.evaluation(m.candidate)).collect();
        front.sort_by(|a, b| {
            let believed = |e: &Evaluation| breeder.latency_ratio(e.candidate).map(|latency| latency.value);
            let ratio = |e: &Evaluation| believed(e).unwrap_or_else(|| e.measurement.latency_ratio());
            ratio(a).total_cmp(&ratio(b)).then(a.candidate.cmp(&b.candidate))
        });
        front
    }

    /// How much longer the search will take at its pace of late; `None` while that is unknown. What it did before it was
    /// paused, or by other workers, tells nothing.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        let budget = self.spec.budget.evaluations?;
        let recent = self.evaluations.iter().rev().take(LATELY + 1).take_while(|e| e.finished >= self.moved);
        let recent: Vec<&Arc<Evaluation>> = recent.collect();
        // The oldest of many only tells when the others began.
        let (since, counted) = match recent.split_last() {
            Some((oldest, others)) if recent.len() > LATELY => (oldest.finished, others),
            Some(_) | None => (self.moved, &recent[..]),
        };
        let done: usize = counted.iter().map(|e| self.prompts_of(e.candidate)).sum();
        if self.phase != Phase::Running || done == 0 {
            return None;
        }
        let left = (budget as f64 - self.spent()).max(0.0) * self.spec.prompts.len() as f64;
        // Longer than a `Duration` can say is as good as unknown.
        Duration::try_from_secs_f64(now.since(since).as_secs_f64() * (left / done as f64)).ok()
    }

    /// How long it has searched, as the budget counts it.
    pub(super) fn wall_time(&self, now: Timestamp) -> Duration {
        let until = self.ended.unwrap_or(now);
        self.started.map_or(Duration::ZERO, |started| until.since(started).saturating_sub(self.rested))
    }

    /// Results in a row in which the hypervolume did not grow, where the budget asks for it.
    pub(super) fn stagnant(&self) -> u64 {
        self.bound.as_ref().map_or(0, |(_, breeder)| breeder.stagnant())
    }

    /// Evaluations as the budget counts them: one on a part of the prompts counts as that part.
    pub fn spent(&self) -> f64 {
        self.evaluated_prompts as f64 / self.spec.prompts.len() as f64
    }

    /// Whether the budget for evaluations is used up when so many more prompts are evaluated.
    pub(super) fn is_spent(&self, more: u64) -> bool {
        let all = self.spec.prompts.len() as u64;
        self.spec
            .budget
            .evaluations
            .is_some_and(|n| self.evaluated_prompts.saturating_add(more) >= n.saturating_mul(all))
    }

    /// How many prompts a candidate is evaluated on.
    pub(super) fn prompts_of(&self, candidate: CandidateId) -> usize {
        self.candidate(candidate).map_or(PromptSet::All, |c| c.proposal.prompts).count(self.spec.prompts.len())
    }

    /// Whether the worker alone has measured a candidate so far, by itself or again.
    pub(super) fn only_by(&self, worker: &WorkerId, candidate: CandidateId) -> bool {
        let by = |id: CandidateId| self.evaluation(id).is_none_or(|e| &e.worker == worker);
        by(candidate) && self.again.get(&candidate).is_none_or(|ids| ids.iter().all(|&id| by(id)))
    }

    /// Whether whoever has measured a candidate is one of whom nobody knows whether others measure the same.
    pub(super) fn is_unproven(&self, candidate: CandidateId) -> bool {
        self.evaluation(candidate).is_some_and(|e| !self.trust.is_proven(&e.worker))
    }

    /// Why a worker cannot take part; `Ok` if it can. The model's name is the caller's to compare.
    pub fn admits(&self, worker: &Declaration) -> Result<(), String> {
        let bound = self.bound.as_ref().map(|(model, _)| model);
        let fingerprint = bound.map(|m| &m.fingerprint).or(self.spec.model.fingerprint.as_ref());
        if let Some(wanted) = fingerprint.filter(|&f| *f != worker.fingerprint) {
            return Err(format!(
                "the search is for fingerprint {wanted}, the worker has {}: other weights or configuration",
                worker.fingerprint
            ));
        }
        self.spec.placement.admits(worker)?;
        if self.spec.forecast && !worker.forecast {
            return Err("the search allows forecasts, which the worker cannot run".into());
        }
        if !self.spec.sampling.grids.is_empty() && !worker.grids {
            return Err("the search tells how to sample (sampling.grids), and the worker cannot be told".into());
        }
        if let Some(model) = bound {
            if *model.layout != worker.layout {
                return Err(format!("the search is for layout {}, the worker has {}", model.layout, worker.layout));
            }
            if model.metrics != worker.metrics {
                let names = |m: &[evocache_proto::domain::MetricDeclaration]| {
                    m.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ")
                };
                let (ours, theirs) = (names(&model.metrics), names(&worker.metrics));
                return Err(format!("the search's metrics are ({ours}), the worker declares ({theirs})"));
            }
        }
        for objective in &self.spec.objectives {
            if evocache_proto::domain::builtin_direction(&objective.metric).is_some() {
                continue;
            }
            match worker.metrics.iter().find(|m| m.name == objective.metric) {
                Some(metric) if metric.direction == objective.direction => {}
                Some(_) => {
                    return Err(format!("the worker's metric '{}' is better the other way", objective.metric));
                }
                None => return Err(format!("the worker does not measure '{}'", objective.metric)),
            }
        }
        self.spec.fits(&worker.layout)?;
        self.spec.fits_metrics(worker.metrics.len())?;
        // All that are imported have the layout of the first.
        match self.spec.imported.first().filter(|i| **i.schedule.layout() != worker.layout) {
            Some(other) => Err(format!(
                "imported schedule '{}' is for layout {}, the worker has {}",
                other.name,
                other.schedule.layout(),
                worker.layout
            )),
            None => Ok(()),
        }
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

    /// Takes an evaluation into all that evaluations add up to. So many were before it.
    pub(super) fn add_up(&mut self, sequence: u64, evaluation: &Evaluation) -> Result<(), TellError> {
        self.take_in(evaluation)?;
        if self.settled.contains(&(sequence + 1))
            && let Some((_, breeder)) = &mut self.bound
        {
            breeder.settle();
        }
        Ok(())
    }

    fn take_in(&mut self, evaluation: &Evaluation) -> Result<(), TellError> {
        self.device_time = self.device_time.saturating_add(evaluation.measurement.device_time);
        if self.disowned.contains(&evaluation.worker) {
            return self.bound.as_mut().map_or(Ok(()), |(_, breeder)| breeder.exclude(evaluation.candidate));
        }
        self.references.tell(&evaluation.device, evaluation.measurement.baseline_latency());
        if let Some((_, breeder)) = &mut self.bound {
            if breeder.objectives().are_in_time() {
                breeder.refer(self.references.uncached_us());
            }
            breeder.tell(evaluation.candidate, &evaluation.measurement)?;
        }
        let prompts = self.prompts_of(evaluation.candidate);
        self.evaluated_prompts += prompts as u64;
        if prompts == self.spec.prompts.len() {
            self.compare(evaluation);
        }
        if let Some(first) = evaluation.provenance.repeats() {
            self.again.entry(first).or_default().push(evaluation.candidate);
        }
        Ok(())
    }

    /// Holds a result against those of others.
    fn compare(&mut self, evaluation: &Evaluation) {
        let first = evaluation.provenance.repeats();
        let again = first.and_then(|first| self.again.get(&first));
        let measured = first.into_iter().chain(again.into_iter().flatten().copied());
        let others: Vec<Arc<Evaluation>> = measured
            .filter(|&id| id != evaluation.candidate && self.prompts_of(id) == self.spec.prompts.len())
            .filter_map(|id| self.evaluation(id).filter(|e| !self.disowned.contains(&e.worker)).cloned())
            .collect();
        let others = others.iter().map(|other| (&other.worker, &other.measurement));
        self.trust.tell(&evaluation.worker, &evaluation.measurement, others);
    }

    /// Another budget holds from now on.
    pub(super) fn extend(&mut self, budget: Budget, rested: Duration, settled: Vec<u64>) -> Result<(), String> {
        self.spec = Arc::new(self.spec.with_budget(budget).map_err(|e| e.to_string())?);
        (self.rested, self.settled) = (rested, settled);
        let breeders = self.bound.iter_mut().map(|(_, breeder)| breeder).chain(self.anew.iter_mut().map(Anew::breeder));
        breeders.for_each(|breeder| breeder.extend(self.spec.clone()));
        Ok(())
    }
}
