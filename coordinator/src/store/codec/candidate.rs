//! Candidates: schedule, provenance, and the lease that was granted by the same decision.

use std::sync::Arc;

use evocache_domain::lease;
use evocache_domain::search::{Proposal, Provenance};
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{CandidateId, Layout, PromptSet, Schedule, SearchId};
use evocache_proto::pb;
use prost::Message;

use super::decode::{corrupt, decode};
use super::keys;
use super::lease as lease_codec;
use crate::ports::StoreError;
use crate::store::medium::Write;
use crate::store::records::CandidateRecord;

/// A candidate with the state and grant time of its first lease, if the same decision granted it.
pub(super) fn created(
    search: &SearchId,
    candidate: CandidateId,
    proposal: &Proposal,
    lease: Option<(&lease::State, Timestamp)>,
) -> Write {
    let record = CandidateRecord {
        steps: proposal.schedule.steps(),
        decisions: proposal.schedule.packed().to_vec(),
        provenance: Some(provenance_message(&proposal.provenance)),
        prompts: proposal.prompts.to_number(),
        lease: lease.map(|(state, granted)| lease_codec::record(state, granted)),
        guidance: proposal.schedule.packed_guidance(),
    };
    Write::New(keys::numbered(keys::CANDIDATE, search, candidate.0), record.encode_to_vec())
}

/// A candidate's own lease record.
pub(super) fn lease_moved(
    search: &SearchId,
    candidate: CandidateId,
    state: &lease::State,
    granted: Timestamp,
) -> Write {
    let key = keys::numbered(keys::LEASE, search, candidate.0);
    Write::Put(key, lease_codec::record(state, granted).encode_to_vec())
}

/// A candidate as it is read back, and its first lease.
pub(super) type Read = (Proposal, Option<(lease::State, Timestamp)>);

pub(super) fn read(key: &[u8], layout: &Arc<Layout>, value: &[u8]) -> Result<Read, StoreError> {
    let mut record: CandidateRecord = decode(key, value)?;
    let lease = record.lease.take().map(|lease| lease_codec::state(key, lease)).transpose()?;
    let schedule = Schedule::from_packed(layout.clone(), record.steps, &record.decisions)
        .and_then(|schedule| schedule.with_packed_guidance(&record.guidance));
    let schedule = Arc::new(schedule.map_err(|e| corrupt(key, e))?);
    let provenance = Arc::new(provenance(record.provenance.unwrap_or_default()));
    Ok((Proposal { schedule, provenance, prompts: PromptSet::from_number(record.prompts) }, lease))
}

fn provenance_message(provenance: &Provenance) -> pb::Provenance {
    pb::Provenance {
        parents: provenance.parents.iter().map(|p| p.0).collect(),
        operator: provenance.origin.to_string(),
        seed_family: provenance.seed_family.clone(),
        // It follows from the specification.
        imported: vec![],
    }
}

fn provenance(message: pb::Provenance) -> Provenance {
    let Ok(origin) = message.operator.parse();
    Provenance {
        parents: message.parents.into_iter().map(CandidateId).collect(),
        origin,
        seed_family: message.seed_family,
    }
}
