//! Facts to records.

use evocache_domain::lease;

use super::{candidate, evaluation, request, search, worker};
use crate::ports::Fact;
use crate::store::medium::Write;

/// What a decision writes.
pub(in crate::store) fn writes(facts: &[Fact]) -> Vec<Write> {
    let mut writes = vec![];
    let mut rest = facts;
    while let [first, others @ ..] = rest {
        rest = others;
        match others.first().and_then(|second| pair(first, second)) {
            Some(both) => {
                writes.extend(both);
                rest = &others[1..];
            }
            None => writes.extend(single(first)),
        }
    }
    writes
}

/// What two facts write that share a record: a candidate and its first lease, or the end of a lease and the evaluation
/// that ended it.
fn pair(first: &Fact, second: &Fact) -> Option<Vec<Write>> {
    match (first, second) {
        (
            Fact::CandidateCreated { search, candidate, proposal },
            Fact::LeaseMoved { search: leased, candidate: of, state, granted },
        ) if search == leased && candidate == of => {
            Some(vec![candidate::created(search, *candidate, proposal, Some((state, *granted)))])
        }
        (
            Fact::LeaseMoved { search, candidate, state: lease::State::Done { epoch, worker }, granted },
            Fact::Evaluated { search: evaluated_in, sequence, evaluation },
        ) if search == evaluated_in
            && *candidate == evaluation.candidate
            && *worker == evaluation.worker
            && *granted == evaluation.started =>
        {
            Some(evaluation::evaluated(search, *sequence, evaluation, Some(*epoch)))
        }
        _ => None,
    }
}

/// What a fact writes that shares no record with another.
fn single(fact: &Fact) -> Vec<Write> {
    match fact {
        Fact::WorkerRegistered { worker, registration } => vec![worker::registered(worker, registration)],
        Fact::WorkerDraining { worker } => vec![worker::draining(worker)],
        Fact::WorkerForgotten { worker } => worker::forgotten(worker).into(),
        Fact::WorkerQuarantined { worker, reason, at } => vec![worker::quarantined(worker, reason, *at)],
        Fact::WorkerExcluded { search, worker } => vec![search::excluded(search, worker)],
        Fact::SearchCreated { search, uid, spec, at } => vec![search::created(search, uid, spec, *at)],
        Fact::SearchBound { search, model, at } => vec![search::bound(search, model, *at)],
        Fact::SearchMoved { search, phase, reason, at } => vec![search::moved(search, *phase, reason, *at)],
        Fact::SearchExtended { search, budget, rested, settled } => {
            vec![search::extended(search, budget, *rested, settled)]
        }
        Fact::SearchDeleted { search } => search::deleted(search),
        Fact::SearchCleared { search } => vec![search::cleared(search)],
        Fact::CandidateCreated { search, candidate, proposal } => {
            vec![candidate::created(search, *candidate, proposal, None)]
        }
        Fact::LeaseMoved { search, candidate, state, granted } => {
            vec![candidate::lease_moved(search, *candidate, state, *granted)]
        }
        Fact::Evaluated { search, sequence, evaluation } => evaluation::evaluated(search, *sequence, evaluation, None),
        Fact::RequestAnswered { request, record } => vec![request::answered(request, record)],
        Fact::RequestForgotten { request } => vec![request::forgotten(request)],
    }
}
