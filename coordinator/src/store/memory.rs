//! The in-memory store: the same records, no disk. For tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use evocache_proto::domain::{CandidateId, SearchId};

use super::codec::{self, keys};
use super::medium::{Medium, Visit, Write};
use crate::ports::{Cleared, Fact, Store, StoreError};

/// Records that one call of `clear` removes. Few, so that tests see partly cleared searches.
const CLEARED: usize = 8;

/// Keeps records in a map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns all records by key.
    pub fn into_records(self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.records.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        // Every change is a single call on the map, so a panicking thread leaves it whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store with arbitrary records, as tests of damage need them.
impl FromIterator<(Vec<u8>, Vec<u8>)> for MemoryStore {
    fn from_iter<I: IntoIterator<Item = (Vec<u8>, Vec<u8>)>>(records: I) -> Self {
        Self { records: Mutex::new(records.into_iter().collect()) }
    }
}

impl Medium for BTreeMap<Vec<u8>, Vec<u8>> {
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)).try_for_each(|(k, v)| visit(k, v))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn skip(&self, _prefix: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Store for MemoryStore {
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        codec::replay(&*self.lock(), each)
    }

    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        let mut records = self.lock();
        for write in codec::writes(facts) {
            match write {
                Write::New(key, value) | Write::Put(key, value) => drop(records.insert(key, value)),
                Write::Remove(key) => drop(records.remove(&key)),
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        let (mut records, prefixes) = (self.lock(), keys::belonging(search));
        let is_of = |key: &&Vec<u8>| prefixes.iter().any(|prefix| key.starts_with(prefix));
        let some: Vec<Vec<u8>> = records.keys().filter(is_of).take(CLEARED).cloned().collect();
        some.iter().for_each(|key| drop(records.remove(key)));
        Ok(if some.len() < CLEARED { Cleared::All } else { Cleared::Some })
    }

    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        codec::thumbnails(&*self.lock(), search, candidate)
    }
}
