//! The records of one moment of a running store. A reader takes them in the order of their keys, in parts; a writer keeps
//! the old values of records that are still to be read.
//!
//! sled has no snapshots. So while a moment is read, each batch first keeps, for every key that it changes and that has not
//! been read yet, the old value or the fact that there was none; the reader prefers what was kept to what is stored. A batch
//! and a part of the reading never overlap. Of the pieces of a large value, only those are kept that the value had at the
//! moment. What is kept is bounded in bytes: if writes exceed the bound, the moment is given up and the writes go on.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use sled::IVec;

use super::errors::of_sled;
use super::mark::Mark;
use super::pieces;
use crate::ports::StoreError;
use crate::store::stream::StreamError;

/// Bytes that a backup keeps for its moment, at most.
pub(super) const KEPT: usize = 64 * 1024 * 1024;
/// Bytes of a part, unless one record is larger. Writers wait while a part is read.
const PART: usize = 64 * 1024;
/// Bytes that keeping a value takes beside key and value, roughly.
const OVERHEAD: usize = 128;
/// A key before all records; the format's version and the mark, which are not records, sort before it.
const BEGINNING: &[u8] = b"!~";

/// A record's key, and the key that was changed: the record's own, or that of one of its pieces.
type Place = (Vec<u8>, Vec<u8>);

/// A record: its key, its value as it is stored (or its head), its whole value.
pub(super) type Whole = (Vec<u8>, IVec, IVec);

/// A moment that is being read.
#[derive(Debug)]
pub(super) struct Moment {
    /// Distinguishes this moment from any other.
    pub(super) name: Arc<()>,
    /// What all records of the moment add up to.
    pub(super) mark: Mark,
    /// The last record that was read.
    passed: Vec<u8>,
    /// Old values; `None`: there was no value.
    kept: BTreeMap<Place, Option<IVec>>,
    /// Bytes of what is kept, and the most that may be kept.
    bytes: usize,
    most: usize,
    given_up: Option<GivenUp>,
}

/// Why a moment cannot be read to its end.
#[derive(Debug, Clone)]
enum GivenUp {
    /// More was changed than may be kept.
    Overtaken,
    /// An old value could not be read, which must not stop the writer.
    Unread(StoreError),
}

impl Moment {
    /// The present moment, for which at most `most` bytes are kept.
    pub(super) fn new(mark: Mark, most: usize) -> Self {
        let (name, passed) = (Arc::new(()), BEGINNING.to_vec());
        Self { name, mark, passed, kept: BTreeMap::new(), bytes: 0, most, given_up: None }
    }

    /// Keeps the old values of keys that are about to be written. Records come before pieces.
    pub(super) fn keep<'a>(&mut self, db: &sled::Db, keys: impl Iterator<Item = &'a Vec<u8>>) {
        if let Err(error) = self.try_keep(db, keys) {
            self.give_up(GivenUp::Unread(error));
        }
    }

    fn try_keep<'a>(&mut self, db: &sled::Db, keys: impl Iterator<Item = &'a Vec<u8>>) -> Result<(), StoreError> {
        for key in keys {
            let record = pieces::record(key).unwrap_or(key);
            let place = (record.to_vec(), key.clone());
            if self.given_up.is_some() || record <= &self.passed[..] || self.kept.contains_key(&place) {
                continue;
            }
            if record != key && !self.has_piece(db, record, key)? {
                continue;
            }
            let before = db.get(key).map_err(of_sled)?;
            self.bytes += OVERHEAD + record.len() + key.len() + before.as_ref().map_or(0, |value| value.len());
            self.kept.insert(place, before);
            if self.bytes > self.most {
                self.give_up(GivenUp::Overtaken);
            }
        }
        Ok(())
    }

    fn give_up(&mut self, why: GivenUp) {
        self.given_up = Some(why);
        self.kept.clear();
    }

    /// Whether a piece belongs to the value that the record had at the moment.
    fn has_piece(&self, db: &sled::Db, record: &[u8], piece: &[u8]) -> Result<bool, StoreError> {
        let value = match self.kept.get(&(record.to_vec(), record.to_vec())) {
            Some(value) => value.clone(),
            None => db.get(record).map_err(of_sled)?,
        };
        value.map_or(Ok(false), |value| pieces::belongs(record, &value, piece))
    }

    /// The next part; empty after the last.
    pub(super) fn next(&mut self, db: &sled::Db) -> Result<Vec<Whole>, StreamError> {
        match &self.given_up {
            Some(GivenUp::Overtaken) => return Err(StreamError::Overtaken(self.most)),
            Some(GivenUp::Unread(error)) => return Err(error.clone().into()),
            None => {}
        }
        let all = (Bound::Excluded(self.passed.clone()), Bound::Excluded(pieces::prefix(b"")));
        let mut stored = db.range(all).peekable();
        let (mut part, mut bytes) = (vec![], 0);
        while bytes < PART {
            let next = match stored.peek() {
                Some(Ok((key, _))) => Some(key.to_vec()),
                Some(Err(e)) => return Err(of_sled(e.clone()).into()),
                None => None,
            };
            let kept = self.kept.first_key_value().map(|((record, _), value)| (record.clone(), value.clone()));
            let (key, head) = match (next, kept) {
                (Some(key), Some((record, value))) if record <= key => {
                    if record == key {
                        stored.next();
                    }
                    (record, value)
                }
                (None, Some(kept)) => kept,
                (Some(key), _) => {
                    let value = stored.next().transpose().map_err(of_sled)?.map(|(_, value)| value);
                    (key, value)
                }
                (None, None) => break,
            };
            if let Some(head) = head {
                let piece = |piece: &[u8]| match self.kept.get(&(key.clone(), piece.to_vec())) {
                    Some(value) => Ok(value.clone()),
                    None => db.get(piece).map_err(of_sled),
                };
                let value = pieces::whole_of(&key, head.clone(), &piece)?;
                bytes += key.len() + value.len();
                part.push((key.clone(), head, value));
            }
            self.pass(key);
        }
        Ok(part)
    }

    /// Drops what was kept of a record that was read.
    fn pass(&mut self, record: Vec<u8>) {
        while let Some(first) = self.kept.first_entry().filter(|first| first.key().0 == record) {
            let ((record, key), value) = first.remove_entry();
            self.bytes -= OVERHEAD + record.len() + key.len() + value.map_or(0, |value| value.len());
        }
        self.passed = record;
    }
}
