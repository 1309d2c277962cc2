//! Looks at every record by itself: of which kind it is, whether it can be read, whether its search is there.
//!
//! Absent: what records say together. That is the engine's to judge, when it rebuilds its state from them.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::records::{
    AnsweredRecord, BudgetRecord, CandidateRecord, EvaluationRecord, LeaseRecord, ModelRecord, PhaseRecord,
    QuarantineRecord, SearchRecord, ThumbnailsRecord, WorkerRecord,
};
use super::{SledStore, codec};
use crate::ports::{Progress, StoreError};

/// More than this many damaged records are counted, not kept.
const KEPT: usize = 100;

/// Kinds of records by the first letter of their keys, in the order in which they are told.
const KINDS: [(u8, &str); 14] = [
    (b's', "searches"),
    (b'g', "searches that are being deleted"),
    (b'm', "models"),
    (b'p', "phases"),
    (b'b', "extended budgets"),
    (b'c', "candidates"),
    (b'l', "leases"),
    (b'e', "evaluations"),
    (b'x', "disowned results"),
    (b't', "thumbnails"),
    (b'w', "workers"),
    (b'd', "draining workers"),
    (b'q', "workers in quarantine"),
    (b'r', "answered calls"),
];

/// A record that is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its key, readable.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Records of each kind.
    pub kinds: Vec<(&'static str, u64)>,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// The first of the damaged records.
    pub damaged: Vec<Damage>,
    /// How many are damaged.
    pub damages: u64,
    /// They are not all of those that were acknowledged.
    pub lost: Option<StoreError>,
}

impl Inspection {
    /// All records of known kinds.
    pub fn records(&self) -> u64 {
        self.kinds.iter().map(|(_, count)| count).sum()
    }
}

/// Reads every record of a store.
pub fn inspect(store: &SledStore, progress: &mut Progress<'_>) -> Result<Inspection, StoreError> {
    let (total, mut done) = (store.count(), 0);
    // Of a deleted search some records may be left.
    let searches = [store.keys(b"s/")?, store.keys(b"g/")?].concat();
    let searches: BTreeSet<Vec<u8>> = searches.into_iter().map(|key| key[2..].to_vec()).collect();
    let mut counts: BTreeMap<u8, u64> = BTreeMap::new();
    let mut seen = Inspection::default();
    let found = store.pass(&mut |key, value| {
        done += 1;
        progress(done, total);
        let looked = value.and_then(|value| {
            seen.bytes += (key.len() + value.len()) as u64;
            look(key, &value, &searches)
        });
        match looked {
            Ok(kind) => *counts.entry(kind).or_default() += 1,
            Err(StoreError::Corrupt { key, problem }) => {
                seen.damages += 1;
                if seen.damaged.len() < KEPT {
                    seen.damaged.push(Damage { key, problem });
                }
            }
            Err(other) => return Err(other),
        }
        Ok(())
    })?;
    seen.lost = store.judge(&found).err();
    seen.kinds = KINDS.iter().map(|(kind, name)| (*name, counts.get(kind).copied().unwrap_or(0))).collect();
    Ok(seen)
}

fn look(key: &[u8], value: &[u8], searches: &BTreeSet<Vec<u8>>) -> Result<u8, StoreError> {
    let (kind, rest) = match key {
        [kind, b'/', rest @ ..] => (*kind, rest),
        _ => return Err(codec::corrupt(key, "a key of no known kind")),
    };
    match kind {
        b'w' => readable::<WorkerRecord>(key, value)?,
        b'd' | b'g' | b'x' if value.is_empty() => {}
        b'd' | b'g' | b'x' => return Err(codec::corrupt(key, "has a value")),
        b'q' => readable::<QuarantineRecord>(key, value)?,
        b's' => readable::<SearchRecord>(key, value)?,
        b'm' => readable::<ModelRecord>(key, value)?,
        b'p' => readable::<PhaseRecord>(key, value)?,
        b'b' => readable::<BudgetRecord>(key, value)?,
        b'c' => readable::<CandidateRecord>(key, value)?,
        b'l' => readable::<LeaseRecord>(key, value)?,
        b'e' => readable::<EvaluationRecord>(key, value)?,
        b't' => readable::<ThumbnailsRecord>(key, value)?,
        b'r' => readable::<AnsweredRecord>(key, value)?,
        _ => return Err(codec::corrupt(key, "a key of no known kind")),
    }
    let search = match kind {
        b'm' | b'p' | b'b' => Some(rest),
        b'c' | b'l' | b'e' | b't' => {
            codec::number(key)?;
            Some(rest.split(|&byte| byte == 0).next().unwrap_or_default())
        }
        b'x' => Some(rest.split(|&byte| byte == 0).next().unwrap_or_default()),
        _ => None,
    };
    match search {
        Some(search) if !searches.contains(search) => Err(codec::corrupt(key, "its search is missing")),
        _ => Ok(kind),
    }
}

fn readable<M: Message + Default>(key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    codec::decode::<M>(key, value).map(drop)
}
