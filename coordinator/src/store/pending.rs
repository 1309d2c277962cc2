//! Writes that are not yet in the database. sled writes to the disk twice for each of its batches, and wakes seven threads
//! for it: so what is decided between two syncs goes into one.

use std::collections::BTreeMap;

use super::sled_store::failed;
use crate::ports::StoreError;

/// Writes by key; the last one counts.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// `None`: the key is removed.
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Pending {
    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.writes.insert(key, Some(value));
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.writes.insert(key, None);
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the key will hold.
    pub(super) fn get(&self, db: &sled::Db, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.as_deref().map(Into::into)),
            None => db.get(key).map_err(failed),
        }
    }

    /// Removes every key with this prefix.
    pub(super) fn remove_prefix(&mut self, db: &sled::Db, prefix: &[u8]) -> Result<(), StoreError> {
        let pending = self.writes.range_mut(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        pending.for_each(|(_, value)| *value = None);
        for key in db.scan_prefix(prefix).keys() {
            self.remove(key.map_err(failed)?.to_vec());
        }
        Ok(())
    }

    /// All of it, for the database. Nothing is left.
    pub(super) fn take(&mut self) -> sled::Batch {
        let mut batch = sled::Batch::default();
        for (key, value) in std::mem::take(self).writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch
    }
}
