//! Reads records and adds them up, so that whoever reads all of them knows their tally.

use std::cell::Cell;

use super::errors::of_sled;
use super::pieces;
use super::tally::Tally;
use crate::ports::StoreError;
use crate::store::medium::{Medium, Visit};

/// Takes a record's key, and its value as it is stored.
type VisitStored<'a> = dyn FnMut(&[u8], sled::IVec) -> Result<(), StoreError> + 'a;

/// A database, and the tally of what was read of it.
pub(super) struct Reader<'a> {
    db: &'a sled::Db,
    tally: Cell<Tally>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(db: &'a sled::Db) -> Self {
        Self { db, tally: Cell::default() }
    }

    /// What the records read so far add up to.
    pub(super) fn tally(&self) -> Tally {
        self.tally.get()
    }

    fn add(&self, key: &[u8], value: &[u8]) {
        let mut tally = self.tally.get();
        tally.add(key, value);
        self.tally.set(tally);
    }

    /// Visits all records as they are stored: of large values the heads. The format's version and the mark are no records.
    pub(super) fn heads(&self, visit: &mut VisitStored<'_>) -> Result<(), StoreError> {
        for entry in self.db.range(..pieces::prefix(b"")) {
            let (key, value) = entry.map_err(of_sled)?;
            if key.first() != Some(&b'!') {
                self.add(&key, &value);
                visit(&key, value)?;
            }
        }
        Ok(())
    }
}

impl Medium for Reader<'_> {
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        for entry in self.db.scan_prefix(prefix) {
            let (key, value) = entry.map_err(of_sled)?;
            self.add(&key, &value);
            visit(&key, &pieces::whole(self.db, &key, value)?)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(value) = self.db.get(key).map_err(of_sled)? else { return Ok(None) };
        self.add(key, &value);
        Ok(Some(pieces::whole(self.db, key, value)?.to_vec()))
    }

    fn skip(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.db.scan_prefix(prefix).try_for_each(|entry| {
            let (key, value) = entry.map_err(of_sled)?;
            self.add(&key, &value);
            Ok(())
        })
    }
}
