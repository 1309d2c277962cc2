//! Writes that are not yet in the database. sled writes to the disk twice for each of its batches, and wakes seven threads
//! for it: so what is decided between two syncs goes into one. Each batch ends with the mark that is true after it.

use std::collections::BTreeMap;

use super::mark::{self, Mark};
use super::pieces;
use super::sled_store::{MARK_KEY, database};
use crate::ports::StoreError;

/// How much more may be removed in a batch.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Room {
    fn take(&mut self, bytes: usize) {
        self.records = self.records.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

/// Writes by key; the last one counts.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// `None`: the key is removed.
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// The database's sequence, and the tally of what it will hold.
    mark: Mark,
}

impl Pending {
    /// On a database with this mark.
    pub(super) fn on(mark: Mark) -> Self {
        Self { mark, ..Self::default() }
    }

    /// What the database will hold; its sequence is that of the last batch.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// Takes what the key will hold out of the tally: something else is to be there, or nothing.
    pub(super) fn discount(&mut self, db: &sled::Db, key: &[u8]) -> Result<(), StoreError> {
        if let Some(before) = self.get(db, key)? {
            self.mark.tally.subtract(key, &before);
        }
        Ok(())
    }

    /// Writes a record, or the head of one, where none is counted.
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

    /// Removes what no tally counts.
    pub(super) fn remove_piece(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.writes.insert(key, None);
    }

    /// Keeps a piece that was to be removed with the value before, which has come back.
    pub(super) fn keep_piece(&mut self, key: &[u8]) {
        self.writes.remove(key);
    }

    /// Bytes of keys and values, the mark's among them.
    pub(super) fn bytes(&self) -> usize {
        if self.writes.is_empty() { 0 } else { self.bytes + MARK_KEY.len() + mark::BYTES }
    }

    /// Keys that are written or removed, ascending.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.writes.keys()
    }

    /// What the key will hold.
    pub(super) fn get(&self, db: &sled::Db, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.as_deref().map(Into::into)),
            None => db.get(key).map_err(database),
        }
    }

    /// Removes records or, of large ones, pieces with this prefix, as long as there is room in the batch. What they hold counts
    /// like what is written: sled writes the leaves that it takes them from.
    pub(super) fn remove_some(&mut self, db: &sled::Db, prefix: &[u8], room: &mut Room) -> Result<(), StoreError> {
        for entry in db.scan_prefix(prefix) {
            if room.is_used_up() {
                return Ok(());
            }
            let (key, value) = entry.map_err(database)?;
            if pieces::record(&key).is_none() {
                self.mark.tally.subtract(&key, &value);
            }
            self.bytes += value.len();
            room.take(key.len() + value.len());
            self.remove_piece(key.to_vec());
        }
        Ok(())
    }

    /// All of it, for the database. Nothing is left but the mark.
    pub(super) fn take(&mut self) -> sled::Batch {
        self.mark.sequence += 1;
        let mut batch = sled::Batch::default();
        for (key, value) in std::mem::take(&mut self.writes) {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(MARK_KEY, &self.mark.encode()[..]);
        self.bytes = 0;
        batch
    }
}
