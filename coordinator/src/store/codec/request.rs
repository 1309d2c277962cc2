//! Answered calls, so that a repeated call gets the same answer.

use evocache_domain::time::Timestamp;
use evocache_proto::domain::RequestId;
use prost::Message;

use super::decode::{corrupt, decode};
use super::keys;
use crate::ports::{Fact, RequestRecord, StoreError};
use crate::store::medium::{Medium, Tell, Write};
use crate::store::records::AnsweredRecord;

pub(super) fn answered(request: &RequestId, record: &RequestRecord) -> Write {
    let record = AnsweredRecord {
        kind: record.kind.clone(),
        digest: record.digest.to_vec(),
        subject: record.subject.clone(),
        at: record.at.0,
    };
    Write::Put(keys::named(keys::REQUEST, request.as_str()), record.encode_to_vec())
}

pub(super) fn forgotten(request: &RequestId) -> Write {
    Write::Remove(keys::named(keys::REQUEST, request.as_str()))
}

pub(super) fn replay(records: &dyn Medium, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    records.scan(&keys::all(keys::REQUEST), &mut |key, value| {
        let record: AnsweredRecord = decode(key, value)?;
        let digest = <[u8; 32]>::try_from(record.digest).map_err(|_| corrupt(key, "the digest is not 32 bytes"))?;
        let request = RequestId::new(keys::name(key)?).map_err(|e| corrupt(key, e))?;
        let record = RequestRecord { kind: record.kind, digest, subject: record.subject, at: Timestamp(record.at) };
        tell(Fact::RequestAnswered { request, record });
        Ok(())
    })
}
