//! Evaluations. Their thumbnails are a record of their own, because a replay does not read them.

use evocache_domain::evaluation::Evaluation;
use evocache_domain::lease;
use evocache_domain::search::Proposal;
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{CandidateId, Epoch, SearchId, WorkerId};
use evocache_proto::{pb, wire};
use prost::Message;

use super::decode::{corrupt, decode, required};
use super::keys;
use crate::ports::StoreError;
use crate::store::medium::{Medium, Write};
use crate::store::records::{EvaluationRecord, ThumbnailsRecord};

/// An evaluation, and the epoch of the lease that it ended, if it ended one.
pub(super) fn evaluated(search: &SearchId, sequence: u64, evaluation: &Evaluation, epoch: Option<Epoch>) -> Vec<Write> {
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
    let mut writes = vec![Write::New(keys::numbered(keys::EVALUATION, search, sequence), record.encode_to_vec())];
    if !pictures.is_empty() {
        let key = keys::numbered(keys::THUMBNAILS, search, evaluation.candidate.0);
        writes.push(Write::New(key, ThumbnailsRecord { pictures }.encode_to_vec()));
    }
    writes
}

/// An evaluation as it is read back, and the lease that it ended.
pub(super) type Read = (Evaluation, Option<(lease::State, Timestamp)>);

/// Reads an evaluation; `proposal` gives what its candidate says.
pub(super) fn read(
    key: &[u8],
    value: &[u8],
    proposal: impl FnOnce(CandidateId) -> Result<Proposal, StoreError>,
) -> Result<Read, StoreError> {
    let record: EvaluationRecord = decode(key, value)?;
    let candidate = CandidateId(record.candidate);
    let Proposal { schedule, provenance, prompts: _ } = proposal(candidate)?;
    let measurement = required(key, "measurement", record.measurement)?;
    let evaluation = Evaluation {
        candidate,
        schedule,
        provenance,
        measurement: wire::measurement(&measurement).map_err(|e| corrupt(key, e))?,
        worker: WorkerId::new(record.worker).map_err(|e| corrupt(key, e))?,
        worker_name: record.worker_name,
        device: record.device,
        started: Timestamp(record.started),
        finished: Timestamp(record.finished),
        attempt: record.attempt,
    };
    let ended = record.epoch.map(|epoch| {
        (lease::State::Done { epoch: Epoch(epoch), worker: evaluation.worker.clone() }, evaluation.started)
    });
    Ok((evaluation, ended))
}

/// The thumbnails of a candidate's evaluation; empty if it has none.
pub(in crate::store) fn thumbnails(
    records: &dyn Medium,
    search: &SearchId,
    candidate: CandidateId,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let key = keys::numbered(keys::THUMBNAILS, search, candidate.0);
    match records.get(&key)? {
        Some(bytes) => Ok(decode::<ThumbnailsRecord>(&key, &bytes)?.pictures),
        None => Ok(vec![]),
    }
}
