//! Records back to facts, in an order in which the facts can be applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use evocache_domain::lease;
use evocache_domain::search::Proposal;
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{CandidateId, SearchId};

use super::decode::{corrupt, decode};
use super::{candidate, evaluation, keys, lease as lease_codec, request, search, worker};
use crate::ports::{Fact, StoreError};
use crate::store::medium::{Medium, Tell};

/// Tells every fact that the records hold. Thumbnails are neither read nor skipped: the caller decides.
pub(in crate::store) fn replay(records: &dyn Medium, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    worker::replay(records, tell)?;
    for deleted in search::replay_deleted(records, tell)? {
        let thumbnails = keys::all(keys::THUMBNAILS);
        let left = keys::belonging(&deleted).into_iter().filter(|prefix| !prefix.starts_with(&thumbnails));
        left.into_iter().try_for_each(|prefix| records.skip(&prefix))?;
    }
    for search in &search::replay_specs(records, tell)? {
        replay_search(records, search, tell)?;
    }
    request::replay(records, tell)
}

/// A candidate whose evaluation has not been read yet, and its last lease.
struct Open {
    proposal: Proposal,
    lease: Option<(lease::State, Timestamp)>,
}

fn replay_search(records: &dyn Medium, search: &SearchId, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    // First, because the search's state is built for the budget that holds.
    search::replay_budget(records, search, tell)?;
    let layout = search::replay_model(records, search, tell)?;
    search::replay_excluded(records, search, tell)?;
    let moved = |candidate, (state, granted)| Fact::LeaseMoved { search: search.clone(), candidate, state, granted };
    // Only open candidates are kept: a large search has too many to keep all.
    let mut open: BTreeMap<CandidateId, Open> = BTreeMap::new();
    records.scan(&keys::of_search(keys::CANDIDATE, search), &mut |key, value| {
        let candidate = CandidateId(keys::number(key)?);
        let layout = layout.as_ref().ok_or_else(|| corrupt(key, "its search has no model"))?;
        let (proposal, lease) = candidate::read(key, layout, value)?;
        open.insert(candidate, Open { proposal: proposal.clone(), lease });
        tell(Fact::CandidateCreated { search: search.clone(), candidate, proposal });
        Ok(())
    })?;
    records.scan(&keys::of_search(keys::LEASE, search), &mut |key, value| {
        let candidate = open.get_mut(&CandidateId(keys::number(key)?)).ok_or_else(|| no_candidate(key))?;
        candidate.lease = Some(lease_codec::state(key, decode(key, value)?)?);
        Ok(())
    })?;
    records.scan(&keys::of_search(keys::EVALUATION, search), &mut |key, value| {
        let mut lease = None;
        let (evaluation, ended) = evaluation::read(key, value, |candidate| {
            let of = open.remove(&candidate).ok_or_else(|| no_candidate(key))?;
            lease = of.lease;
            Ok(of.proposal)
        })?;
        if let Some(lease) = ended.or(lease) {
            tell(moved(evaluation.candidate, lease));
        }
        let sequence = keys::number(key)?;
        tell(Fact::Evaluated { search: search.clone(), sequence, evaluation: Arc::new(evaluation) });
        Ok(())
    })?;
    for (candidate, Open { lease, .. }) in open {
        if let Some(lease) = lease {
            tell(moved(candidate, lease));
        }
    }
    search::replay_phase(records, search, tell)
}

fn no_candidate(key: &[u8]) -> StoreError {
    corrupt(key, "its candidate is missing or already has an evaluation")
}
