//! Leases. Deadlines are not stored: after a restart every lease gets a full term.

use evocache_domain::lease::{Failure, Grant, State};
use evocache_domain::time::Timestamp;
use evocache_proto::domain::{Epoch, WorkerId};

use super::decode::{corrupt, required};
use crate::ports::StoreError;
use crate::store::records::{
    CancelledRecord, FailedRecord, GrantRecord, LeaseRecord, LeaseState, LeasedRecord, PendingRecord,
};

/// The record of a lease whose current or last grant was made at `granted`.
pub(super) fn record(state: &State, granted: Timestamp) -> LeaseRecord {
    let (state, grants) = match state {
        State::Pending { attempt, not_before, grants } => {
            (LeaseState::Pending(PendingRecord { attempt: *attempt, not_before: not_before.0 }), grant_records(grants))
        }
        State::Leased { worker, epoch, deadline: _, attempt, grants } => {
            let holder = Some(GrantRecord { epoch: epoch.0, worker: worker.to_string() });
            (LeaseState::Leased(LeasedRecord { holder, attempt: *attempt }), grant_records(grants))
        }
        State::Done { epoch, worker } => {
            (LeaseState::Done(GrantRecord { epoch: epoch.0, worker: worker.to_string() }), vec![])
        }
        State::Failed { reason: Failure::Expired { attempts } } => {
            (LeaseState::Failed(FailedRecord { attempts: *attempts, message: None }), vec![])
        }
        State::Failed { reason: Failure::Reported { attempts, message } } => {
            (LeaseState::Failed(FailedRecord { attempts: *attempts, message: Some(message.clone()) }), vec![])
        }
        State::Cancelled { grants } => (LeaseState::Cancelled(CancelledRecord {}), grant_records(grants)),
    };
    LeaseRecord { state: Some(state), granted: granted.0, grants }
}

fn grant_records(grants: &[Grant]) -> Vec<GrantRecord> {
    grants.iter().map(|g| GrantRecord { epoch: g.epoch.0, worker: g.worker.to_string() }).collect()
}

/// A lease and when its current or last grant was made.
pub(super) fn state(key: &[u8], record: LeaseRecord) -> Result<(State, Timestamp), StoreError> {
    let grant = |g: GrantRecord| {
        let worker = WorkerId::new(g.worker).map_err(|e| corrupt(key, e))?;
        Ok(Grant { epoch: Epoch(g.epoch), worker })
    };
    let grants: Vec<Grant> = record.grants.into_iter().map(grant).collect::<Result<_, StoreError>>()?;
    let granted = Timestamp(record.granted);
    let state = match required(key, "state", record.state)? {
        LeaseState::Pending(p) => State::Pending { attempt: p.attempt, not_before: Timestamp(p.not_before), grants },
        LeaseState::Leased(l) => {
            let Grant { epoch, worker } = grant(required(key, "holder", l.holder)?)?;
            // Recovery sets the deadline.
            State::Leased { worker, epoch, deadline: granted, attempt: l.attempt, grants }
        }
        LeaseState::Done(g) => {
            let Grant { epoch, worker } = grant(g)?;
            State::Done { epoch, worker }
        }
        LeaseState::Failed(f) => State::Failed {
            reason: match f.message {
                Some(message) => Failure::Reported { attempts: f.attempts, message },
                None => Failure::Expired { attempts: f.attempts },
            },
        },
        LeaseState::Cancelled(CancelledRecord {}) => State::Cancelled { grants },
    };
    Ok((state, granted))
}
