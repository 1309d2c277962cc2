//! Decided writes that are not in the database yet. sled writes to the disk twice for each batch, and wakes seven threads for
//! it, so everything that is decided between two syncs goes into one batch. Each batch ends with the mark that holds after
//! it.

use std::collections::BTreeMap;

use super::errors::of_sled;
use super::mark::{self, Mark};
use super::pieces;
use crate::ports::StoreError;

/// How much more a batch may remove.
#[derive(Debug)]
pub(super) struct Allowance {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Allowance {
    fn use_up(&mut self, bytes: usize) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

/// Writes by key; a later one replaces an earlier one.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The new value; `None` removes the key.
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// The sequence of the last batch, and the tally of what the database will hold.
    mark: Mark,
}

impl Pending {
    /// Nothing pending, on a database with this mark.
    pub(super) fn on(mark: Mark) -> Self {
        Self { mark, ..Self::default() }
    }

    /// The sequence of the last batch, and the tally of what the database will hold.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Subtracts the key's value from the tally, before it is replaced or removed.
    pub(super) fn discount(&mut self, db: &sled::Db, key: &[u8]) -> Result<(), StoreError> {
        if let Some(before) = self.get(db, key)? {
            self.mark.tally.subtract(key, &before);
        }
        Ok(())
    }

    /// Writes a record, or the head of one, under a key that the tally does not count.
    pub(super) fn add(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.mark.tally.add(&key, &value);
        self.bytes += key.len() + value.len();
        self.writes.insert(key, Some(value));
    }

    /// Removes a record, or the head of one.
    pub(super) fn remove(&mut self, db: &sled::Db, key: Vec<u8>) -> Result<(), StoreError> {
        self.discount(db, &key)?;
        self.bytes += key.len();
        self.writes.insert(key, None);
        Ok(())
    }

    /// Removes the pieces of the key's value, unless the new value (`None`: it is removed) is the same.
    pub(super) fn trim(&mut self, db: &sled::Db, key: &[u8], new: Option<&[u8]>) -> Result<(), StoreError> {
        let Some(before) = self.get(db, key)?.filter(|before| new != Some(&before[..])) else { return Ok(()) };
        pieces::keys_of(key, &before)?.into_iter().for_each(|piece| self.remove_piece(piece));
        Ok(())
    }

    /// Removes a piece, which the tally does not count.
    fn remove_piece(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.writes.insert(key, None);
    }

    /// Keeps a piece that was to be removed: its value was replaced and has come back.
    pub(super) fn keep_piece(&mut self, key: &[u8]) {
        self.writes.remove(key);
    }

    /// Bytes of keys and values, including the mark's; 0 if nothing is pending.
    pub(super) fn bytes(&self) -> usize {
        if self.writes.is_empty() { 0 } else { self.bytes + mark::KEY.len() + mark::BYTES }
    }

    /// All keys that are written or removed, ascending.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.writes.keys()
    }

    /// The value that the key will have.
    pub(super) fn get(&self, db: &sled::Db, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.as_deref().map(Into::into)),
            None => db.get(key).map_err(of_sled),
        }
    }

    /// Removes records or pieces with this prefix until the allowance is used up. The removed bytes count like written ones,
    /// because sled writes the leaves from which it removes them.
    pub(super) fn remove_some(&mut self, db: &sled::Db, prefix: &[u8], left: &mut Allowance) -> Result<(), StoreError> {
        for entry in db.scan_prefix(prefix) {
            if left.is_used_up() {
                return Ok(());
            }
            let (key, value) = entry.map_err(of_sled)?;
            if pieces::record(&key).is_none() {
                self.mark.tally.subtract(&key, &value);
            }
            self.bytes += value.len();
            left.use_up(key.len() + value.len());
            self.remove_piece(key.to_vec());
        }
        Ok(())
    }

    /// Takes all writes as one batch, with the mark that holds after it.
    pub(super) fn take(&mut self) -> sled::Batch {
        self.mark.sequence += 1;
        let mut batch = sled::Batch::default();
        for (key, value) in std::mem::take(&mut self.writes) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(mark::KEY, &self.mark.encode()[..]);
        self.bytes = 0;
        batch
    }
}
