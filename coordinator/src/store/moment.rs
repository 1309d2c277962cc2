//! One moment of a store that goes on: its records are read in the order of their keys, and whoever writes keeps what was
//! there before, where it is still to be read.
//!
//! sled has no snapshots. So from the moment on, a batch first notes the old value, or that there was none, of each of its
//! keys that has not been passed yet; whoever reads takes what is noted before what is stored. A batch and a part of the
//! reading never overlap. Pieces of a large value go with the value: only those are noted that it had at the moment. What is
//! noted is bounded: a moment that is overtaken by too many writes is given up, and the writes are not.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use sled::IVec;

use super::backup::StreamError;
use super::mark::Mark;
use super::pieces;
use super::sled_store::database;
use super::tally::Tally;
use crate::ports::StoreError;

/// Bytes that are kept for a moment, at most.
pub(super) const KEPT: usize = 64 * 1024 * 1024;
/// Bytes that are read before others may write, unless one record has more.
const PART: usize = 64 * 1024;
/// What a note takes beside its bytes, roughly.
const NOTE: usize = 128;
/// Before all records: neither the format's version nor the mark is one.
const BEGINNING: &[u8] = b"!~";

/// A record's own key, and the key that was changed: the same, or that of one of its pieces.
type Place = (Vec<u8>, Vec<u8>);

/// A record: its key, its value or the head of it, its whole value.
pub(super) type Whole = (Vec<u8>, IVec, IVec);

/// A moment that is being read.
#[derive(Debug)]
pub(super) struct Moment {
    /// Tells it from any other.
    pub(super) name: Arc<()>,
    /// What all records add up to.
    pub(super) mark: Mark,
    /// All records up to this one were read.
    passed: Vec<u8>,
    /// What was there before. `None`: nothing.
    kept: BTreeMap<Place, Option<IVec>>,
    bytes: usize,
    most: usize,
    given_up: Option<GivenUp>,
}

/// Why a moment cannot be read to its end.
#[derive(Debug, Clone)]
enum GivenUp {
    /// More was changed than may be kept.
    Overtaken,
    /// What was there could not be read: that is no reason not to write.
    Unread(StoreError),
}

impl Moment {
    /// The present one. At most so many bytes are kept for it.
    pub(super) fn new(mark: Mark, most: usize) -> Self {
        let (name, passed) = (Arc::new(()), BEGINNING.to_vec());
        Self { name, mark, passed, kept: BTreeMap::new(), bytes: 0, most, given_up: None }
    }

    /// Notes what is there under keys that are about to be written: records before pieces.
    pub(super) fn keep<'a>(&mut self, db: &sled::Db, keys: impl Iterator<Item = &'a Vec<u8>>) {
        if let Err(error) = self.note(db, keys) {
            self.give_up(GivenUp::Unread(error));
        }
    }

    fn note<'a>(&mut self, db: &sled::Db, keys: impl Iterator<Item = &'a Vec<u8>>) -> Result<(), StoreError> {
        for key in keys {
            let record = pieces::record(key).unwrap_or(key);
            let place = (record.to_vec(), key.clone());
            if self.given_up.is_some() || record <= &self.passed[..] || self.kept.contains_key(&place) {
                continue;
            }
            if record != key && !self.has_piece(db, record, key)? {
                continue;
            }
            let before = db.get(key).map_err(database)?;
            self.bytes += NOTE + record.len() + key.len() + before.as_ref().map_or(0, |value| value.len());
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

    /// Whether a piece belongs to the value that the record had.
    fn has_piece(&self, db: &sled::Db, record: &[u8], piece: &[u8]) -> Result<bool, StoreError> {
        let value = match self.kept.get(&(record.to_vec(), record.to_vec())) {
            Some(value) => value.clone(),
            None => db.get(record).map_err(database)?,
        };
        value.map_or(Ok(false), |value| pieces::belongs(record, &value, piece))
    }

    /// The next records; none if all were read.
    pub(super) fn next(&mut self, db: &sled::Db) -> Result<Vec<Whole>, StreamError> {
        match &self.given_up {
            Some(GivenUp::Overtaken) => return Err(StreamError::Overtaken(self.most)),
            Some(GivenUp::Unread(error)) => return Err(error.clone().into()),
            None => {}
        }
        let all = (Bound::Excluded(self.passed.clone()), Bound::Excluded(pieces::further(b"")));
        let mut stored = db.range(all).peekable();
        let (mut part, mut bytes) = (vec![], 0);
        while bytes < PART {
            let next = match stored.peek() {
                Some(Ok((key, _))) => Some(key.to_vec()),
                Some(Err(e)) => return Err(database(e.clone()).into()),
                None => None,
            };
            let noted = self.kept.first_key_value().map(|((record, _), value)| (record.clone(), value.clone()));
            let (key, head) = match (next, noted) {
                (Some(key), Some((record, value))) if record <= key => {
                    if record == key {
                        stored.next();
                    }
                    (record, value)
                }
                (None, Some(noted)) => noted,
                (Some(key), _) => {
                    let value = stored.next().transpose().map_err(database)?.map(|(_, value)| value);
                    (key, value)
                }
                (None, None) => break,
            };
            if let Some(head) = head {
                let piece = |piece: &[u8]| match self.kept.get(&(key.clone(), piece.to_vec())) {
                    Some(value) => Ok(value.clone()),
                    None => db.get(piece).map_err(database),
                };
                let value = pieces::whole_of(&key, head.clone(), &piece)?;
                bytes += key.len() + value.len();
                part.push((key.clone(), head, value));
            }
            self.pass(key);
        }
        Ok(part)
    }

    /// A record was read: what was kept of it is not needed any more.
    fn pass(&mut self, record: Vec<u8>) {
        while let Some(first) = self.kept.first_entry().filter(|first| first.key().0 == record) {
            let ((record, key), value) = first.remove_entry();
            self.bytes -= NOTE + record.len() + key.len() + value.map_or(0, |value| value.len());
        }
        self.passed = record;
    }
}

/// Whoever reads a moment of a store, part by part. In between, the store may fail and be opened again: then the moment is
/// gone.
pub(super) trait Steps {
    /// Asks the store as it is now.
    fn step<T>(&self, ask: impl FnOnce(&super::SledStore) -> Result<T, StreamError>) -> Result<T, StreamError>;
}

/// A moment of a store that is read from here on. It ends with this, read to its end or not.
pub(super) struct Reading<'a, S: Steps> {
    steps: &'a S,
    name: Arc<()>,
    /// What all records add up to.
    pub(super) mark: Mark,
}

impl<'a, S: Steps> Reading<'a, S> {
    /// Begins with the present moment of the store. One at a time.
    pub(super) fn begin(steps: &'a S, most: usize) -> Result<Self, StreamError> {
        let (name, mark) = steps.step(|store| store.begin_moment(most))?;
        Ok(Self { steps, name, mark })
    }

    /// Tells every record in the order of the keys. An error at the end if they are not those of the moment.
    pub(super) fn records(&self, each: &mut super::Visit<'_>) -> Result<(), StreamError> {
        let mut tally = Tally::default();
        loop {
            let part = self.steps.step(|store| store.next_of_moment(&self.name))?;
            if part.is_empty() {
                return self.steps.step(|store| Ok(store.judge_moment(&self.mark, &tally)?));
            }
            for (key, head, value) in part {
                tally.add(&key, &head);
                each(&key, &value)?;
            }
        }
    }
}

impl<S: Steps> Drop for Reading<'_, S> {
    fn drop(&mut self) {
        // A store that is gone keeps nothing.
        let _ = self.steps.step(|store| {
            store.end_moment(&self.name);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Fact, Store};
    use crate::store::SledStore;
    use evocache_proto::domain::WorkerId;

    fn quarantined(worker: usize, reason: String) -> Fact {
        let worker = WorkerId::new(format!("w-{worker:04}")).unwrap();
        Fact::WorkerQuarantined { worker, reason, at: evocache_domain::time::Timestamp(1) }
    }

    /// A store of so many records, each of a value in pieces, and reading that has begun.
    fn filled(folder: &std::path::Path, records: usize) -> SledStore {
        let store = SledStore::open(folder).unwrap();
        for worker in 0..records {
            store.commit(&[quarantined(worker, "a".repeat(9_000))]).unwrap();
        }
        store
    }

    #[test]
    fn a_moment_that_too_many_writes_overtake_is_given_up_and_the_writes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(folder.path(), 40);
        let reading = Reading::begin(&store, 50_000).unwrap();
        let mut told = 0;
        let outcome = reading.records(&mut |_, _| {
            told += 1;
            if told == 1 {
                (0..40).try_for_each(|worker| store.commit(&[quarantined(worker, "b".repeat(9_000))]))?;
                store.sync()?;
            }
            Ok(())
        });
        assert!(matches!(outcome, Err(StreamError::Overtaken(50_000))), "{outcome:?}");
        assert!(outcome.unwrap_err().to_string().contains("try again"));
        assert!(matches!(Reading::begin(&store, KEPT), Err(StreamError::Busy)));
        drop(reading);
        drop(store);
        let facts = SledStore::open(folder.path()).unwrap().load().unwrap();
        assert!(
            facts.iter().all(|fact| matches!(fact, Fact::WorkerQuarantined { reason, .. } if reason.starts_with('b')))
        );
        assert_eq!(facts.len(), 40);
    }

    #[test]
    fn what_was_read_is_kept_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let store = filled(folder.path(), 40);
        let reading = Reading::begin(&store, 450_000).unwrap();
        let mut told = 0;
        // Each record changes before it is read, which would be too much to keep for all of them at once.
        let outcome = reading.records(&mut |_, value| {
            assert!(value.len() > 9_000 && value.contains(&b'a'), "a value of later");
            told += 1;
            let change = |worker| store.commit(&[quarantined(worker, format!("{worker}").repeat(4_000))]);
            (told..40.min(told + 12)).try_for_each(change)?;
            store.sync()
        });
        assert!(outcome.is_ok() && told == 40, "{told} {outcome:?}");
    }
}
