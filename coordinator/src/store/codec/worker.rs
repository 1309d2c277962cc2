//! Workers: registrations, draining, quarantine.

use std::sync::Arc;

use evocache_domain::time::Timestamp;
use evocache_proto::domain::WorkerId;
use evocache_proto::wire;
use prost::Message;

use super::decode::{corrupt, decode, required};
use super::keys;
use crate::ports::{Fact, Registration, StoreError};
use crate::store::medium::{Medium, Tell, Write};
use crate::store::records::{QuarantineRecord, WorkerRecord};

pub(super) fn registered(worker: &WorkerId, registration: &Registration) -> Write {
    let record = WorkerRecord {
        declaration: Some(wire::register_request(String::new(), &registration.declaration)),
        at: registration.at.0,
        principal: registration.principal.clone(),
    };
    Write::Put(keys::named(keys::WORKER, worker.as_str()), record.encode_to_vec())
}

pub(super) fn draining(worker: &WorkerId) -> Write {
    Write::Put(keys::named(keys::DRAINING, worker.as_str()), vec![])
}

pub(super) fn quarantined(worker: &WorkerId, reason: &str, at: Timestamp) -> Write {
    let record = QuarantineRecord { reason: reason.to_owned(), at: at.0 };
    Write::Put(keys::named(keys::QUARANTINE, worker.as_str()), record.encode_to_vec())
}

pub(super) fn forgotten(worker: &WorkerId) -> [Write; 3] {
    [keys::WORKER, keys::DRAINING, keys::QUARANTINE].map(|kind| Write::Remove(keys::named(kind, worker.as_str())))
}

pub(super) fn replay(records: &dyn Medium, tell: &mut Tell<'_>) -> Result<(), StoreError> {
    records.scan(&keys::all(keys::WORKER), &mut |key, value| {
        let record: WorkerRecord = decode(key, value)?;
        let declaration = required(key, "declaration", record.declaration)?;
        let declaration = Arc::new(wire::declaration(&declaration).map_err(|e| corrupt(key, e))?);
        let registration = Registration { declaration, at: Timestamp(record.at), principal: record.principal };
        tell(Fact::WorkerRegistered { worker: keys::worker(key)?, registration });
        Ok(())
    })?;
    records.scan(&keys::all(keys::DRAINING), &mut |key, _| {
        tell(Fact::WorkerDraining { worker: keys::worker(key)? });
        Ok(())
    })?;
    records.scan(&keys::all(keys::QUARANTINE), &mut |key, value| {
        let QuarantineRecord { reason, at } = decode(key, value)?;
        tell(Fact::WorkerQuarantined { worker: keys::worker(key)?, reason, at: Timestamp(at) });
        Ok(())
    })
}
