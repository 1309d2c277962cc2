//! Checks every record by itself: which kind it is, whether it can be read, whether its search exists.
//!
//! Does not check whether records agree with each other: the engine does, when it rebuilds its state from them.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::codec::{corrupt, decode, keys};
use super::records::{
    AnsweredRecord, BudgetRecord, CandidateRecord, EvaluationRecord, LeaseRecord, ModelRecord, PhaseRecord,
    QuarantineRecord, SearchRecord, ThumbnailsRecord, WorkerRecord,
};
use super::sled::SledStore;
use crate::ports::{Progress, StoreError};

/// The number of damaged records that are named; all are counted.
const NAMED: usize = 100;

/// The names of all kinds, in the order in which a report lists them.
const KINDS: [(u8, &str); 14] = [
    (keys::SEARCH, "searches"),
    (keys::DELETED, "searches that are being deleted"),
    (keys::MODEL, "models"),
    (keys::PHASE, "search states"),
    (keys::BUDGET, "extended budgets"),
    (keys::CANDIDATE, "candidates"),
    (keys::LEASE, "leases"),
    (keys::EVALUATION, "evaluations"),
    (keys::EXCLUDED, "excluded results"),
    (keys::THUMBNAILS, "thumbnails"),
    (keys::WORKER, "workers"),
    (keys::DRAINING, "draining workers"),
    (keys::QUARANTINE, "workers in quarantine"),
    (keys::REQUEST, "answered calls"),
];

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its key, with other bytes than printable ASCII escaped.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What an inspection found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The number of records of each kind.
    pub kinds: Vec<(&'static str, u64)>,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// The first damaged records.
    pub damaged: Vec<Damage>,
    /// The number of damaged records.
    pub damages: u64,
    /// Set if the records are not the acknowledged ones.
    pub lost: Option<StoreError>,
}

impl Inspection {
    /// The number of undamaged records.
    pub fn records(&self) -> u64 {
        self.kinds.iter().map(|(_, count)| count).sum()
    }
}

/// Reads every record of a store.
pub fn inspect(store: &SledStore, progress: &mut Progress<'_>) -> Result<Inspection, StoreError> {
    let (total, mut done) = (store.count(), 0);
    // A deleted search may have records left.
    let searches = [store.keys(&keys::all(keys::SEARCH))?, store.keys(&keys::all(keys::DELETED))?].concat();
    let searches: BTreeSet<Vec<u8>> = searches.into_iter().map(|key| key[2..].to_vec()).collect();
    let mut counts: BTreeMap<u8, u64> = BTreeMap::new();
    let mut seen = Inspection::default();
    let lost = store.survey(&mut |key, value| {
        done += 1;
        progress(done, total);
        let looked = value.and_then(|value| {
            seen.bytes += (key.len() + value.len()) as u64;
            look(key, value, &searches)
        });
        match looked {
            Ok(kind) => *counts.entry(kind).or_default() += 1,
            Err(StoreError::Corrupt { key, problem }) => {
                seen.damages += 1;
                if seen.damaged.len() < NAMED {
                    seen.damaged.push(Damage { key, problem });
                }
            }
            Err(other) => return Err(other),
        }
        Ok(())
    })?;
    seen.lost = lost;
    seen.kinds = KINDS.iter().map(|(kind, name)| (*name, counts.get(kind).copied().unwrap_or(0))).collect();
    Ok(seen)
}

fn look(key: &[u8], value: &[u8], searches: &BTreeSet<Vec<u8>>) -> Result<u8, StoreError> {
    let (kind, rest) = match key {
        [kind, b'/', rest @ ..] => (*kind, rest),
        _ => return Err(corrupt(key, "its key is of no known kind")),
    };
    match kind {
        keys::WORKER => readable::<WorkerRecord>(key, value)?,
        keys::DRAINING | keys::DELETED | keys::EXCLUDED if value.is_empty() => {}
        keys::DRAINING | keys::DELETED | keys::EXCLUDED => {
            return Err(corrupt(key, "it should be empty and has a value"));
        }
        keys::QUARANTINE => readable::<QuarantineRecord>(key, value)?,
        keys::SEARCH => readable::<SearchRecord>(key, value)?,
        keys::MODEL => readable::<ModelRecord>(key, value)?,
        keys::PHASE => readable::<PhaseRecord>(key, value)?,
        keys::BUDGET => readable::<BudgetRecord>(key, value)?,
        keys::CANDIDATE => readable::<CandidateRecord>(key, value)?,
        keys::LEASE => readable::<LeaseRecord>(key, value)?,
        keys::EVALUATION => readable::<EvaluationRecord>(key, value)?,
        keys::THUMBNAILS => readable::<ThumbnailsRecord>(key, value)?,
        keys::REQUEST => readable::<AnsweredRecord>(key, value)?,
        _ => return Err(corrupt(key, "its key is of no known kind")),
    }
    let search = match kind {
        keys::MODEL | keys::PHASE | keys::BUDGET => Some(rest),
        keys::CANDIDATE | keys::LEASE | keys::EVALUATION | keys::THUMBNAILS => {
            keys::number(key)?;
            Some(rest.split(|&byte| byte == 0).next().unwrap_or_default())
        }
        keys::EXCLUDED => Some(rest.split(|&byte| byte == 0).next().unwrap_or_default()),
        _ => None,
    };
    match search {
        Some(search) if !searches.contains(search) => Err(corrupt(key, "its search is missing")),
        _ => Ok(kind),
    }
}

fn readable<M: Message + Default>(key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    decode::<M>(key, value).map(drop)
}
