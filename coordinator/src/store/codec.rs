//! Facts to records, and records back to facts.
//!
//! | key | record |
//! |---|---|
//! | `w/` worker | registration |
//! | `d/` worker | draining, empty |
//! | `q/` worker | why it is in quarantine |
//! | `g/` search | deleted, and not all of its records are gone yet, empty |
//! | `s/` search | specification |
//! | `m/` search | what the first worker declared |
//! | `p/` search | phase |
//! | `b/` search | the budget, if it was extended |
//! | `c/` search `\0` candidate | schedule and provenance; the lease, if the same decision granted one |
//! | `l/` search `\0` candidate | lease, where it is neither the candidate's first nor ended by its evaluation |
//! | `e/` search `\0` sequence | evaluation, and the epoch that it ended |
//! | `x/` search `\0` worker | whose results count no more, empty |
//! | `t/` search `\0` candidate | thumbnails |
//! | `r/` request | answered call |
//!
//! Numbers in keys are big-endian, so that records come back in their order. A lease is what its evaluation says, else
//! what `l/` says, else what its candidate says: so an evaluation costs two records, both at the end of their kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{CandidateId, Epoch, Layout, RequestId, Schedule, SearchId, SearchUid, WorkerId};
use evocache_proto::{pb, wire};
use prost::Message;

use super::records::{
    AnsweredRecord, BudgetRecord, CancelledRecord, CandidateRecord, EvaluationRecord, FailedRecord, GrantRecord,
    LeaseRecord, LeaseState, LeasedRecord, ModelRecord, PendingRecord, PhaseRecord, QuarantineRecord, SearchRecord,
    ThumbnailsRecord, WorkerRecord,
};
use super::{Records, Write};
use crate::ports::{Fact, ModelFacts, Phase, Registration, RequestRecord, StoreError};
use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease::{self, Failure, Grant};
use evocache_domain::search::{Proposal, Provenance};
use evocache_domain::time::Timestamp;

/// The prefix of what is not replayed.
pub(super) const THUMBNAILS: &[u8] = b"t/";

const PHASES: [Phase; 6] =
    [Phase::Pending, Phase::Running, Phase::Paused, Phase::Completed, Phase::Stopped, Phase::Failed];

fn key(kind: u8, name: &str) -> Vec<u8> {
    let mut key = vec![kind, b'/'];
    key.extend_from_slice(name.as_bytes());
    key
}

fn numbered(kind: u8, search: &SearchId, number: u64) -> Vec<u8> {
    let mut key = of_search(kind, search);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn of_search(kind: u8, search: &SearchId) -> Vec<u8> {
    let mut key = key(kind, search.as_str());
    key.push(0);
    key
}

/// The prefixes of what a search has many of.
pub(super) fn belonging(search: &SearchId) -> [Vec<u8>; 5] {
    [b'c', b'l', b'e', b'x', b't'].map(|kind| of_search(kind, search))
}

/// What a decision writes.
pub(super) fn writes(facts: &[Fact]) -> Vec<Write> {
    let mut writes = vec![];
    let mut rest = facts;
    while let [first, others @ ..] = rest {
        rest = others;
        match others.first().and_then(|second| pair(first, second)) {
            Some(both) => {
                writes.extend(both);
                rest = &others[1..];
            }
            None => writes.extend(alone(first)),
        }
    }
    writes
}

/// What two facts write that are told by one record: a candidate and its first lease, the end of a lease and the
/// evaluation that ended it.
fn pair(first: &Fact, second: &Fact) -> Option<Vec<Write>> {
    match (first, second) {
        (
            Fact::CandidateCreated { search, candidate, proposal },
            Fact::LeaseMoved { search: leased, candidate: of, state, granted },
        ) if search == leased && candidate == of => {
            let record = CandidateRecord { lease: Some(lease_record(state, *granted)), ..candidate_record(proposal) };
            Some(vec![Write::New(numbered(b'c', search, candidate.0), record.encode_to_vec())])
        }
        (
            Fact::LeaseMoved { search, candidate, state: lease::State::Done { epoch, worker }, granted },
            Fact::Evaluated { search: evaluated_in, sequence, evaluation },
        ) if search == evaluated_in
            && *candidate == evaluation.candidate
            && *worker == evaluation.worker
            && *granted == evaluation.started =>
        {
            Some(evaluated(search, *sequence, evaluation, Some(*epoch)))
        }
        _ => None,
    }
}

/// What a fact writes by itself.
fn alone(fact: &Fact) -> Vec<Write> {
    match fact {
        Fact::WorkerRegistered { worker, registration } => {
            let record = WorkerRecord {
                declaration: Some(wire::register_request(String::new(), &registration.declaration)),
                at: registration.at.0,
                principal: registration.principal.clone(),
            };
            vec![Write::Put(key(b'w', worker.as_str()), record.encode_to_vec())]
        }
        Fact::WorkerDraining { worker } => vec![Write::Put(key(b'd', worker.as_str()), vec![])],
        Fact::WorkerForgotten { worker } => {
            b"wdq".iter().map(|&kind| Write::Remove(key(kind, worker.as_str()))).collect()
        }
        Fact::WorkerQuarantined { worker, reason, at } => {
            let record = QuarantineRecord { reason: reason.clone(), at: at.0 };
            vec![Write::Put(key(b'q', worker.as_str()), record.encode_to_vec())]
        }
        Fact::WorkerExcluded { search, worker } => {
            let key = [of_search(b'x', search), worker.as_str().as_bytes().to_vec()].concat();
            vec![Write::Put(key, vec![])]
        }
        Fact::SearchCreated { search, uid, spec, at } => {
            let record = SearchRecord { spec: Some(spec.as_ref().into()), at: at.0, uid: uid.to_string() };
            vec![Write::Put(key(b's', search.as_str()), record.encode_to_vec())]
        }
        Fact::SearchBound { search, model, at } => {
            let record = ModelRecord { model: Some(model_message(model)), at: at.0 };
            vec![Write::Put(key(b'm', search.as_str()), record.encode_to_vec())]
        }
        Fact::SearchMoved { search, phase, reason, at } => {
            let index = PHASES.iter().position(|p| p == phase).unwrap_or(0);
            let record = PhaseRecord { phase: index as u32 + 1, reason: reason.clone(), at: at.0 };
            vec![Write::Put(key(b'p', search.as_str()), record.encode_to_vec())]
        }
        Fact::SearchExtended { search, budget, rested, settled } => {
            let rested = u64::try_from(rested.as_millis()).unwrap_or(u64::MAX);
            let record = BudgetRecord { budget: Some(budget.into()), rested, settled: settled.clone() };
            vec![Write::Put(key(b'b', search.as_str()), record.encode_to_vec())]
        }
        Fact::SearchDeleted { search } => {
            let removed = b"smpb".iter().map(|&kind| Write::Remove(key(kind, search.as_str())));
            removed.chain([Write::Put(key(b'g', search.as_str()), vec![])]).collect()
        }
        Fact::SearchCleared { search } => vec![Write::Remove(key(b'g', search.as_str()))],
        Fact::CandidateCreated { search, candidate, proposal } => {
            vec![Write::New(numbered(b'c', search, candidate.0), candidate_record(proposal).encode_to_vec())]
        }
        Fact::LeaseMoved { search, candidate, state, granted } => {
            vec![Write::Put(numbered(b'l', search, candidate.0), lease_record(state, *granted).encode_to_vec())]
        }
        Fact::Evaluated { search, sequence, evaluation } => evaluated(search, *sequence, evaluation, None),
        Fact::RequestAnswered { request, record } => {
            let record = AnsweredRecord {
                kind: record.kind.clone(),
                digest: record.digest.to_vec(),
                subject: record.subject.clone(),
                at: record.at.0,
            };
            vec![Write::Put(key(b'r', request.as_str()), record.encode_to_vec())]
        }
        Fact::RequestForgotten { request } => vec![Write::Remove(key(b'r', request.as_str()))],
    }
}

fn candidate_record(proposal: &Proposal) -> CandidateRecord {
    CandidateRecord {
        steps: proposal.schedule.steps(),
        decisions: proposal.schedule.packed().to_vec(),
        provenance: Some(provenance_message(&proposal.provenance)),
        prompts: proposal.prompts,
        lease: None,
    }
}

fn evaluated(search: &SearchId, sequence: u64, evaluation: &Evaluation, epoch: Option<Epoch>) -> Vec<Write> {
    let mut measurement = pb::Measurement::from(&evaluation.measurement);
    let pictures: Vec<Vec<u8>> = measurement.thumbnails.drain(..).map(|picture| picture.to_vec()).collect();
    let record = EvaluationRecord {
        candidate: evaluation.candidate.0,
        measurement: Some(measurement),
        worker: evaluation.worker.to_string(),
        worker_name: evaluation.worker_name.clone(),
        device: evaluation.device.clone(),
        started: evaluation.started.0,
        finished: evaluation.finished.0,
        attempt: evaluation.attempt,
        epoch: epoch.map(|epoch| epoch.0),
    };
    let mut writes = vec![Write::New(numbered(b'e', search, sequence), record.encode_to_vec())];
    if !pictures.is_empty() {
        let record = ThumbnailsRecord { pictures };
        writes.push(Write::New(numbered(b't', search, evaluation.candidate.0), record.encode_to_vec()));
    }
    writes
}

pub(super) fn thumbnails(
    records: &dyn Records,
    search: &SearchId,
    candidate: CandidateId,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let key = numbered(b't', search, candidate.0);
    match records.get(&key)? {
        Some(bytes) => Ok(decode::<ThumbnailsRecord>(&key, &bytes)?.pictures),
        None => Ok(vec![]),
    }
}

/// All facts in an order in which they can be applied.
pub(super) fn replay(records: &dyn Records, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
    records.scan(b"w/", &mut |key, value| {
        let record: WorkerRecord = decode(key, value)?;
        let declaration = required(key, "declaration", record.declaration)?;
        let declaration = Arc::new(wire::declaration(&declaration).map_err(|e| corrupt(key, e))?);
        let registration = Registration { declaration, at: Timestamp(record.at), principal: record.principal };
        each(Fact::WorkerRegistered { worker: worker_id(key)?, registration });
        Ok(())
    })?;
    records.scan(b"d/", &mut |key, _| {
        each(Fact::WorkerDraining { worker: worker_id(key)? });
        Ok(())
    })?;
    records.scan(b"q/", &mut |key, value| {
        let QuarantineRecord { reason, at } = decode(key, value)?;
        each(Fact::WorkerQuarantined { worker: worker_id(key)?, reason, at: Timestamp(at) });
        Ok(())
    })?;
    let mut deleted = vec![];
    records.scan(b"g/", &mut |key, _| {
        let search = SearchId::new(name(key)?).map_err(|e| corrupt(key, e))?;
        deleted.push(search.clone());
        each(Fact::SearchDeleted { search });
        Ok(())
    })?;
    for search in &deleted {
        let read = belonging(search).into_iter().filter(|prefix| !prefix.starts_with(THUMBNAILS));
        read.into_iter().try_for_each(|prefix| records.pass(&prefix))?;
    }
    let mut searches = vec![];
    records.scan(b"s/", &mut |key, value| {
        let record: SearchRecord = decode(key, value)?;
        let spec = wire::search_spec(&required(key, "spec", record.spec)?).map_err(|e| corrupt(key, e))?;
        let search = SearchId::new(name(key)?).map_err(|e| corrupt(key, e))?;
        let uid = SearchUid::new(record.uid).map_err(|e| corrupt(key, e))?;
        searches.push(search.clone());
        each(Fact::SearchCreated { search, uid, spec: Arc::new(spec), at: Timestamp(record.at) });
        Ok(())
    })?;
    for search in &searches {
        replay_search(records, search, each)?;
    }
    records.scan(b"r/", &mut |key, value| {
        let record: AnsweredRecord = decode(key, value)?;
        let digest = <[u8; 32]>::try_from(record.digest).map_err(|_| corrupt(key, "digest has not 32 bytes"))?;
        let request = RequestId::new(name(key)?).map_err(|e| corrupt(key, e))?;
        let record = RequestRecord { kind: record.kind, digest, subject: record.subject, at: Timestamp(record.at) };
        each(Fact::RequestAnswered { request, record });
        Ok(())
    })
}

fn replay_search(records: &dyn Records, search: &SearchId, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
    // First of all: a breeder is made for the budget that there is.
    let extended = key(b'b', search.as_str());
    if let Some(bytes) = records.get(&extended)? {
        let record: BudgetRecord = decode(&extended, &bytes)?;
        let budget = wire::budget(&required(&extended, "budget", record.budget)?).map_err(|e| corrupt(&extended, e))?;
        let (rested, settled) = (Duration::from_millis(record.rested), record.settled);
        each(Fact::SearchExtended { search: search.clone(), budget, rested, settled });
    }
    let mut layout = None;
    let bound = key(b'm', search.as_str());
    if let Some(bytes) = records.get(&bound)? {
        let record: ModelRecord = decode(&bound, &bytes)?;
        let model = model_facts(&bound, &required(&bound, "model", record.model)?)?;
        layout = Some(model.layout.clone());
        each(Fact::SearchBound { search: search.clone(), model, at: Timestamp(record.at) });
    }
    let disowned = of_search(b'x', search);
    records.scan(&disowned, &mut |key, _| {
        let worker = String::from_utf8_lossy(&key[disowned.len()..]).into_owned();
        let worker = WorkerId::new(worker).map_err(|e| corrupt(key, e))?;
        each(Fact::WorkerExcluded { search: search.clone(), worker });
        Ok(())
    })?;
    // Candidates whose evaluation was not read yet: in a large search there is no room to keep all.
    let mut open: BTreeMap<CandidateId, Open> = BTreeMap::new();
    records.scan(&of_search(b'c', search), &mut |key, value| {
        let candidate = CandidateId(number(key)?);
        let layout: &Arc<Layout> = layout.as_ref().ok_or_else(|| corrupt(key, "its search has no model"))?;
        let mut record: CandidateRecord = decode(key, value)?;
        let lease = record.lease.take().map(|lease| lease_state(key, lease)).transpose()?;
        let proposal = proposal(key, layout, record)?;
        open.insert(candidate, Open { proposal: proposal.clone(), lease });
        each(Fact::CandidateCreated { search: search.clone(), candidate, proposal });
        Ok(())
    })?;
    records.scan(&of_search(b'l', search), &mut |key, value| {
        let candidate = open.get_mut(&CandidateId(number(key)?)).ok_or_else(|| no_candidate(key))?;
        candidate.lease = Some(lease_state(key, decode(key, value)?)?);
        Ok(())
    })?;
    records.scan(&of_search(b'e', search), &mut |key, value| {
        let record: EvaluationRecord = decode(key, value)?;
        let candidate = CandidateId(record.candidate);
        let Open { proposal, lease } = open.remove(&candidate).ok_or_else(|| no_candidate(key))?;
        let measurement = required(key, "measurement", record.measurement)?;
        let evaluation = Evaluation {
            candidate,
            schedule: proposal.schedule,
            provenance: proposal.provenance,
            measurement: wire::measurement(&measurement).map_err(|e| corrupt(key, e))?,
            worker: WorkerId::new(record.worker).map_err(|e| corrupt(key, e))?,
            worker_name: record.worker_name,
            device: record.device,
            started: Timestamp(record.started),
            finished: Timestamp(record.finished),
            attempt: record.attempt,
        };
        let ended = record.epoch.map(|epoch| {
            let done = lease::State::Done { epoch: Epoch(epoch), worker: evaluation.worker.clone() };
            (done, evaluation.started)
        });
        if let Some((state, granted)) = ended.or(lease) {
            each(Fact::LeaseMoved { search: search.clone(), candidate, state, granted });
        }
        let sequence = number(key)?;
        each(Fact::Evaluated { search: search.clone(), sequence, evaluation: Arc::new(evaluation) });
        Ok(())
    })?;
    for (candidate, Open { lease, .. }) in open {
        if let Some((state, granted)) = lease {
            each(Fact::LeaseMoved { search: search.clone(), candidate, state, granted });
        }
    }
    let phase_key = key(b'p', search.as_str());
    if let Some(bytes) = records.get(&phase_key)? {
        let record: PhaseRecord = decode(&phase_key, &bytes)?;
        let phase = (record.phase as usize).checked_sub(1).and_then(|i| PHASES.get(i));
        let phase = *phase.ok_or_else(|| corrupt(&phase_key, format!("unknown phase {}", record.phase)))?;
        let at = Timestamp(record.at);
        each(Fact::SearchMoved { search: search.clone(), phase, reason: record.reason, at });
    }
    Ok(())
}

/// A candidate whose evaluation is not known, and its last lease.
struct Open {
    proposal: Proposal,
    lease: Option<(lease::State, Timestamp)>,
}

fn no_candidate(key: &[u8]) -> StoreError {
    corrupt(key, "its candidate is missing, or has an evaluation already")
}

fn proposal(key: &[u8], layout: &Arc<Layout>, record: CandidateRecord) -> Result<Proposal, StoreError> {
    let schedule = Schedule::from_packed(layout.clone(), record.steps, &record.decisions);
    let schedule = Arc::new(schedule.map_err(|e| corrupt(key, e))?);
    let prompts = record.prompts;
    let provenance = record.provenance.unwrap_or_default();
    let provenance = Provenance {
        parents: provenance.parents.into_iter().map(CandidateId).collect(),
        operator: provenance.operator,
        seed_family: provenance.seed_family,
    };
    Ok(Proposal { schedule, provenance: Arc::new(provenance), prompts })
}

fn provenance_message(provenance: &Provenance) -> pb::Provenance {
    pb::Provenance {
        parents: provenance.parents.iter().map(|p| p.0).collect(),
        operator: provenance.operator.clone(),
        seed_family: provenance.seed_family.clone(),
        // It follows from the specification.
        imported: vec![],
    }
}

fn model_message(model: &ModelFacts) -> pb::ModelFacts {
    pb::ModelFacts {
        fingerprint: model.fingerprint.clone(),
        layout: Some(model.layout.as_ref().into()),
        metrics: model.metrics.iter().map(Into::into).collect(),
        cost: model.cost.as_ref().map(Into::into),
    }
}

fn model_facts(key: &[u8], message: &pb::ModelFacts) -> Result<ModelFacts, StoreError> {
    let layout = message.layout.as_ref().ok_or_else(|| corrupt(key, "no layout"))?;
    let layout = Arc::new(wire::layout(layout).map_err(|e| corrupt(key, e))?);
    let cost = message.cost.as_ref().map(|c| wire::cost_model(layout.slots(), c)).transpose();
    Ok(ModelFacts {
        fingerprint: message.fingerprint.clone(),
        metrics: wire::metrics(&message.metrics).map_err(|e| corrupt(key, e))?,
        cost: cost.map_err(|e| corrupt(key, e))?,
        layout,
    })
}

fn grant_records(grants: &[Grant]) -> Vec<GrantRecord> {
    grants.iter().map(|g| GrantRecord { epoch: g.epoch.0, worker: g.worker.to_string() }).collect()
}

fn lease_record(state: &lease::State, granted: Timestamp) -> LeaseRecord {
    let (state, grants) = match state {
        lease::State::Pending { attempt, not_before, grants } => {
            let record = PendingRecord { attempt: *attempt, not_before: not_before.0 };
            (LeaseState::Pending(record), grant_records(grants))
        }
        lease::State::Leased { worker, epoch, deadline: _, attempt, grants } => {
            let holder = Some(GrantRecord { epoch: epoch.0, worker: worker.to_string() });
            (LeaseState::Leased(LeasedRecord { holder, attempt: *attempt }), grant_records(grants))
        }
        lease::State::Done { epoch, worker } => {
            (LeaseState::Done(GrantRecord { epoch: epoch.0, worker: worker.to_string() }), vec![])
        }
        lease::State::Failed { reason: Failure::Expired { attempts } } => {
            (LeaseState::Failed(FailedRecord { attempts: *attempts, message: None }), vec![])
        }
        lease::State::Failed { reason: Failure::Reported { attempts, message } } => {
            (LeaseState::Failed(FailedRecord { attempts: *attempts, message: Some(message.clone()) }), vec![])
        }
        lease::State::Cancelled { grants } => (LeaseState::Cancelled(CancelledRecord {}), grant_records(grants)),
    };
    LeaseRecord { state: Some(state), granted: granted.0, grants }
}

fn lease_state(key: &[u8], record: LeaseRecord) -> Result<(lease::State, Timestamp), StoreError> {
    let grant = |g: GrantRecord| {
        let worker = WorkerId::new(g.worker).map_err(|e| corrupt(key, e))?;
        Ok(Grant { epoch: Epoch(g.epoch), worker })
    };
    let grants: Vec<Grant> = record.grants.into_iter().map(grant).collect::<Result<_, StoreError>>()?;
    let granted = Timestamp(record.granted);
    let state = match required(key, "state", record.state)? {
        LeaseState::Pending(p) => {
            lease::State::Pending { attempt: p.attempt, not_before: Timestamp(p.not_before), grants }
        }
        LeaseState::Leased(l) => {
            let Grant { epoch, worker } = grant(required(key, "holder", l.holder)?)?;
            // The deadline is not stored: recovery gives every lease a full term.
            lease::State::Leased { worker, epoch, deadline: granted, attempt: l.attempt, grants }
        }
        LeaseState::Done(g) => {
            let Grant { epoch, worker } = grant(g)?;
            lease::State::Done { epoch, worker }
        }
        LeaseState::Failed(f) => lease::State::Failed {
            reason: match f.message {
                Some(message) => Failure::Reported { attempts: f.attempts, message },
                None => Failure::Expired { attempts: f.attempts },
            },
        },
        LeaseState::Cancelled(CancelledRecord {}) => lease::State::Cancelled { grants },
    };
    Ok((state, granted))
}

pub(super) fn decode<M: Message + Default>(key: &[u8], bytes: &[u8]) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|e| corrupt(key, e))
}

fn required<T>(key: &[u8], field: &str, value: Option<T>) -> Result<T, StoreError> {
    value.ok_or_else(|| corrupt(key, format!("no {field}")))
}

pub(super) fn corrupt(key: &[u8], problem: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { key: key.escape_ascii().to_string(), problem: problem.to_string() }
}

fn name(key: &[u8]) -> Result<String, StoreError> {
    String::from_utf8(key[2..].to_vec()).map_err(|_| corrupt(key, "the key is not text"))
}

fn worker_id(key: &[u8]) -> Result<WorkerId, StoreError> {
    WorkerId::new(name(key)?).map_err(|e| corrupt(key, e))
}

pub(super) fn number(key: &[u8]) -> Result<u64, StoreError> {
    let digits = key.len().checked_sub(8).and_then(|at| key.get(at..)).and_then(|d| <[u8; 8]>::try_from(d).ok());
    digits.map(u64::from_be_bytes).ok_or_else(|| corrupt(key, "the key has no number"))
}
