//! The keys of all records.
//!
//! | key | record |
//! |---|---|
//! | `w/` worker | registration |
//! | `d/` worker | the worker drains; empty |
//! | `q/` worker | why the worker is in quarantine |
//! | `g/` search | deleted, with records left to remove; empty |
//! | `s/` search | specification |
//! | `m/` search | what the first worker declared |
//! | `p/` search | phase |
//! | `b/` search | the budget, if it was extended |
//! | `c/` search `\0` candidate | schedule and provenance; also the lease, if the same decision granted one |
//! | `l/` search `\0` candidate | lease, unless it is the candidate's first or its evaluation ended it |
//! | `e/` search `\0` sequence | evaluation, and the epoch of the lease that it ended |
//! | `x/` search `\0` worker | this worker's results are excluded; empty |
//! | `t/` search `\0` candidate | thumbnails |
//! | `r/` request | answered call |
//!
//! Candidates and sequences are eight bytes, big-endian, so that records come back in their order.

use evocache_proto::domain::{SearchId, WorkerId};

use super::decode::corrupt;
use crate::ports::StoreError;

pub(in crate::store) const WORKER: u8 = b'w';
pub(in crate::store) const DRAINING: u8 = b'd';
pub(in crate::store) const QUARANTINE: u8 = b'q';
pub(in crate::store) const DELETED: u8 = b'g';
pub(in crate::store) const SEARCH: u8 = b's';
pub(in crate::store) const MODEL: u8 = b'm';
pub(in crate::store) const PHASE: u8 = b'p';
pub(in crate::store) const BUDGET: u8 = b'b';
pub(in crate::store) const CANDIDATE: u8 = b'c';
pub(in crate::store) const LEASE: u8 = b'l';
pub(in crate::store) const EVALUATION: u8 = b'e';
pub(in crate::store) const EXCLUDED: u8 = b'x';
pub(in crate::store) const THUMBNAILS: u8 = b't';
pub(in crate::store) const REQUEST: u8 = b'r';

/// The prefix of all records of a kind.
pub(in crate::store) fn all(kind: u8) -> [u8; 2] {
    [kind, b'/']
}

/// The key of the record of this name.
pub(super) fn named(kind: u8, name: &str) -> Vec<u8> {
    [&all(kind), name.as_bytes()].concat()
}

/// The prefix of the records of which a search has many.
pub(super) fn of_search(kind: u8, search: &SearchId) -> Vec<u8> {
    [&all(kind), search.as_str().as_bytes(), &[0]].concat()
}

/// The key of one of those.
pub(super) fn numbered(kind: u8, search: &SearchId, number: u64) -> Vec<u8> {
    [&of_search(kind, search)[..], &number.to_be_bytes()].concat()
}

/// The prefixes of everything of which a search has many.
pub(in crate::store) fn belonging(search: &SearchId) -> [Vec<u8>; 5] {
    [CANDIDATE, LEASE, EVALUATION, EXCLUDED, THUMBNAILS].map(|kind| of_search(kind, search))
}

/// The name in a key of [`named`].
pub(super) fn name(key: &[u8]) -> Result<String, StoreError> {
    String::from_utf8(key[2..].to_vec()).map_err(|_| corrupt(key, "the key is not text"))
}

/// The worker of a key of [`named`].
pub(super) fn worker(key: &[u8]) -> Result<WorkerId, StoreError> {
    WorkerId::new(name(key)?).map_err(|e| corrupt(key, e))
}

/// The search of a key of [`named`].
pub(super) fn search(key: &[u8]) -> Result<SearchId, StoreError> {
    SearchId::new(name(key)?).map_err(|e| corrupt(key, e))
}

/// The number in a key of [`numbered`].
pub(in crate::store) fn number(key: &[u8]) -> Result<u64, StoreError> {
    let digits = key.split_last_chunk().map(|(_, digits)| *digits);
    digits.map(u64::from_be_bytes).ok_or_else(|| corrupt(key, "the key has no number"))
}
