//! What a search has one of: specification, model, phase, budget; and its deletion.

use std::sync::Arc;
use std::time::Duration;

use evocache_domain::time::Timestamp;
use evocache_proto::domain::{Budget, Layout, SearchId, SearchSpec, SearchUid, WorkerId};
use evocache_proto::{pb, wire};
use prost::Message;

use super::decode::{corrupt, decode, required};
use super::keys;
use crate::ports::{Fact, ModelFacts, SearchState, StoreError};
use crate::store::medium::{Medium, Tell, Write};
use crate::store::records::{BudgetRecord, ModelRecord, PhaseRecord, SearchRecord};

/// A phase is stored as its place in this list, counted from 1.
const PHASES: [SearchState; 6] = [
    SearchState::Pending,
    SearchState::Running,
    SearchState::Paused,
    SearchState::Completed,
    SearchState::Stopped,
    SearchState::Failed,
];

pub(super) fn created(search: &SearchId, uid: &SearchUid, spec: &SearchSpec, at: Timestamp) -> Write {
    let record = SearchRecord { spec: Some(spec.into()), at: at.0, uid: uid.to_string() };
    Write::Put(keys::named(keys::SEARCH, search.as_str()), record.encode_to_vec())
}

pub(super) fn bound(search: &SearchId, model: &ModelFacts, at: Timestamp) -> Write {
    let record = ModelRecord { model: Some(model_message(model)), at: at.0 };
    Write::Put(keys::named(keys::MODEL, search.as_str()), record.encode_to_vec())
}

pub(super) fn moved(search: &SearchId, phase: SearchState, reason: &str, at: Timestamp) -> Write {
    let index = PHASES.iter().position(|&p| p == phase).unwrap_or(0);
    let record = PhaseRecord { phase: index as u32 + 1, reason: reason.to_owned(), at: at.0 };
    Write::Put(keys::named(keys::PHASE, search.as_str()), record.encode_to_vec())
}

pub(super) fn extended(search: &SearchId, budget: &Budget, rested: Duration, settled: &[u64]) -> Write {
    let rested = u64::try_from(rested.as_millis()).unwrap_or(u64::MAX);
    let record = BudgetRecord { budget: Some(budget.into()), rested, settled: settled.to_vec() };
    Write::Put(keys::named(keys::BUDGET, search.as_str()), record.encode_to_vec())
}

/// Excludes a worker's results.
pub(super) fn excluded(search: &SearchId, worker: &WorkerId) -> Write {
    let key = [&keys::of_search(keys::EXCLUDED, search), worker.as_str().as_bytes()].concat();
    Write::Put(key, vec![])
}

/// Removes what a search has one of. What it has many of goes later, in parts.
pub(super) fn deleted(search: &SearchId) -> Vec<Write> {
    let single = [keys::SEARCH, keys::MODEL, keys::PHASE, keys::BUDGET];
    let removed = single.into_iter().map(|kind| Write::Remove(keys::named(kind, search.as_str())));
    removed.chain([Write::Put(keys::named(keys::DELETED, search.as_str()), vec![])]).collect()
}

/// Nothing of a deleted search is left.
pub(super) fn cleared(search: &SearchId) -> Write {
    Write::Remove(keys::named(keys::DELETED, search.as_str()))
}

/// Tells every specification, and returns the searches in the order of their ids.
pub(super) fn replay_specs(records: &dyn Medium, tell: &mut Tell<'_>) -> Result<Vec<SearchId>, StoreError> {
    let mut searches = vec![];
    records.scan(&keys::all(keys::SEARCH), &mut |key, value| {
        let record: SearchRecord = decode(key, value)?;
        let spec = wire::search_spec(&required(key, "spec", record.spec)?).map_err(|e| corrupt(key, e))?;
        let search = keys::search(key)?;
        let uid = SearchUid::new(record.uid).map_err(|e| corrupt(key, e))?;
        searches.push(search.clone());
        tell(Fact::SearchCreated { search, uid, spec: Arc::new(spec), at: Timestamp(record.at) });
        Ok(())
    })?;
    Ok(searches)
}

/// Tells every deleted search that has records left, and returns them.
pub(super) fn replay_deleted(records: &dyn Medium, tell: &mut Tell<'_>) -> Result<Vec<SearchId>, StoreError> {
    let mut deleted = vec![];
    records.scan(&keys::all(keys::DELETED), &mut |key, _| {
        let search = keys::search(key)?;
        deleted.push(search.clone());
        tell(Fact::SearchDeleted { search });
        Ok(())
    })?;
    Ok(deleted)
}

pub(super) fn replay_budget(records: &dyn Medium, search: &SearchId, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    let key = keys::named(keys::BUDGET, search.as_str());
    let Some(bytes) = records.get(&key)? else { return Ok(()) };
    let record: BudgetRecord = decode(&key, &bytes)?;
    let budget = wire::budget(&required(&key, "budget", record.budget)?).map_err(|e| corrupt(&key, e))?;
    let (rested, settled) = (Duration::from_millis(record.rested), record.settled);
    tell(Fact::SearchExtended { search: search.clone(), budget, rested, settled });
    Ok(())
}

/// Tells what the first worker declared, and returns its layout; `None` if no worker has joined.
pub(super) fn replay_model(
    records: &dyn Medium,
    search: &SearchId,
    tell: &mut Tell<'_>,
) -> Result<Option<Arc<Layout>>, StoreError> {
    let key = keys::named(keys::MODEL, search.as_str());
    let Some(bytes) = records.get(&key)? else { return Ok(None) };
    let record: ModelRecord = decode(&key, &bytes)?;
    let model = model_facts(&key, &required(&key, "model", record.model)?)?;
    let layout = model.layout.clone();
    tell(Fact::SearchBound { search: search.clone(), model, at: Timestamp(record.at) });
    Ok(Some(layout))
}

pub(super) fn replay_excluded(records: &dyn Medium, search: &SearchId, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    let prefix = keys::of_search(keys::EXCLUDED, search);
    records.scan(&prefix, &mut |key, _| {
        let worker = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
        let worker = WorkerId::new(worker).map_err(|e| corrupt(key, e))?;
        tell(Fact::WorkerExcluded { search: search.clone(), worker });
        Ok(())
    })
}

pub(super) fn replay_phase(records: &dyn Medium, search: &SearchId, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    let key = keys::named(keys::PHASE, search.as_str());
    let Some(bytes) = records.get(&key)? else { return Ok(()) };
    let record: PhaseRecord = decode(&key, &bytes)?;
    let phase = (record.phase as usize).checked_sub(1).and_then(|i| PHASES.get(i));
    let phase = *phase.ok_or_else(|| corrupt(&key, format!("unknown phase {}", record.phase)))?;
    tell(Fact::SearchMoved { search: search.clone(), phase, reason: record.reason, at: Timestamp(record.at) });
    Ok(())
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
    let layout = required(key, "layout", message.layout.as_ref())?;
    let layout = Arc::new(wire::layout(layout).map_err(|e| corrupt(key, e))?);
    let cost = message.cost.as_ref().map(|c| wire::cost_model(layout.slots(), c)).transpose();
    Ok(ModelFacts {
        fingerprint: message.fingerprint.clone(),
        metrics: wire::metrics(&message.metrics).map_err(|e| corrupt(key, e))?,
        cost: cost.map_err(|e| corrupt(key, e))?,
        layout,
    })
}
