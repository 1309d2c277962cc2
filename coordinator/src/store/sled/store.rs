//! The store: an open database with what is pending, what was acknowledged, and the moment that a backup reads.
//!
//! After an error of the database nothing more is written until it is opened again: the error does not tell what has
//! reached the disk, and decisions must not build on a guess.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use evocache_proto::domain::{CandidateId, SearchId};

use super::database::{Database, MAX_UNSYNCED, VERSION_KEY};
use super::errors::{failed, of_sled};
use super::live_backup::{self, Moments};
use super::mark::{Mark, MarkFile};
use super::moment::{Moment, Whole};
use super::pending::{Allowance, Pending};
use super::pieces;
use super::reader::Reader;
use super::tally::Tally;
use crate::faults::{self, Point};
use crate::ports::{BackupError, Cleared, Fact, Loss, Progress, Store, StoreError};
use crate::store::codec::{self, keys};
use crate::store::medium::{Medium, Visit, Write};
use crate::store::records::FORMAT_VERSION;
use crate::store::stream::StreamError;

/// Records of a deleted search that one call removes, if they are small. sled takes some 50 µs for each.
const CLEARED: usize = 256;

/// Takes a record's key, and its value or the error of reading it.
type VisitAny<'a> = dyn FnMut(&[u8], Result<&[u8], StoreError>) -> Result<(), StoreError> + 'a;

/// Keeps records in a sled database.
#[derive(Debug)]
pub struct SledStore {
    database: Database,
    /// What is decided and not yet in the database.
    pending: Mutex<Pending>,
    /// What was acknowledged. `None`: that is unknown, so nothing may be acknowledged.
    mark: Mutex<Option<MarkFile>>,
    /// What a backup is reading. Locked after `pending`.
    moment: Mutex<Option<Moment>>,
    /// The first error of a commit or a sync.
    failed: OnceLock<StoreError>,
}

/// What was acknowledged, compared with what is there.
impl SledStore {
    /// A store on an open database, with the database's own mark and the file of what was acknowledged.
    pub(super) fn new(database: Database, stored: Mark, mark: Option<MarkFile>) -> Self {
        Self {
            database,
            pending: Mutex::new(Pending::on(stored)),
            mark: Mutex::new(mark),
            moment: Mutex::new(None),
            failed: OnceLock::new(),
        }
    }

    /// Whether a commit or a sync failed, so that it takes nothing more.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Whether a sync of one of its files failed: the system may take for written what is not on the disk.
    pub(super) fn sync_failed(&self) -> bool {
        self.database.sync_failed() || self.mark().as_ref().is_some_and(MarkFile::sync_failed)
    }

    /// The database's own mark, and the newer of that and the acknowledged one.
    fn expected(&self) -> (Mark, Mark) {
        let stored = self.pending().mark();
        let acknowledged = self.mark().as_ref().map(MarkFile::newest);
        (stored, acknowledged.filter(|mark| mark.sequence >= stored.sequence).unwrap_or(stored))
    }

    /// The number of records that should be there.
    pub(in crate::store) fn count(&self) -> u64 {
        self.expected().1.tally.holding.records
    }

    /// Compares what was found with what was acknowledged.
    pub(super) fn judge(&self, found: &Tally) -> Result<(), StoreError> {
        let (stored, expected) = self.expected();
        if stored == expected && expected.tally == *found {
            return Ok(());
        }
        Err(self.lost(&expected, found, expected.sequence - stored.sequence))
    }

    fn lost(&self, expected: &Mark, found: &Tally, writes: u64) -> StoreError {
        let loss = Loss { acknowledged: expected.tally.holding, found: found.holding, writes };
        StoreError::Lost { path: self.database.path().display().to_string(), loss: Box::new(loss) }
    }

    /// Accepts the records found as all there ever were: from now on the mark says so.
    pub(super) fn adopt(&self, found: Tally) -> Result<(), StoreError> {
        let sequence = self.expected().1.sequence;
        let mut pending = self.pending();
        *pending = Pending::on(Mark { sequence, tally: found });
        let mut batch = pending.take();
        batch.insert(VERSION_KEY, &FORMAT_VERSION.to_be_bytes());
        self.database.sled().apply_batch(batch).map_err(of_sled)?;
        self.database.sync()?;
        let mut file = self.mark();
        match &mut *file {
            Some(file) => file.advance(pending.mark()),
            None => {
                *file = Some(MarkFile::create(self.database.path(), pending.mark()).map_err(failed)?);
                Ok(())
            }
        }
    }
}

/// Reading.
impl SledStore {
    /// Visits every record in the order of the keys, with its value or the error of reading it. Returns the loss if the
    /// records are not the acknowledged ones.
    pub(in crate::store) fn survey(&self, visit: &mut VisitAny<'_>) -> Result<Option<StoreError>, StoreError> {
        let db = self.database.sled();
        let found = self.read(|reader| {
            reader.heads(&mut |key, value| match pieces::whole(db, key, value) {
                Ok(value) => visit(key, Ok(&value)),
                Err(error) => visit(key, Err(error)),
            })
        })?;
        Ok(self.judge(&found).err())
    }

    /// Visits every record in the order of the keys. An error at the end if they are not the acknowledged ones.
    pub(in crate::store) fn records(&self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.survey(&mut |key, value| visit(key, value?))?.map_or(Ok(()), Err)
    }

    /// Tells all facts and returns their records' tally without judging it.
    pub(super) fn replay_any(&self, each: &mut dyn FnMut(Fact)) -> Result<Tally, StoreError> {
        self.read(|reader| {
            codec::replay(reader, each)?;
            reader.skip(&keys::all(keys::THUMBNAILS))
        })
    }

    /// The tally of all records. Large values are not read.
    pub(super) fn tally(&self) -> Result<Tally, StoreError> {
        self.read(|reader| reader.heads(&mut |_, _| Ok(())))
    }

    /// All keys with this prefix.
    pub(in crate::store) fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        let keys = self.database.sled().scan_prefix(prefix).keys();
        keys.map(|key| key.map(|key| key.to_vec()).map_err(|e| self.database.located(of_sled(e)))).collect()
    }

    fn read(&self, read: impl FnOnce(&Reader<'_>) -> Result<(), StoreError>) -> Result<Tally, StoreError> {
        let reader = Reader::new(self.database.sled());
        read(&reader).map_err(|e| self.database.located(e))?;
        Ok(reader.tally())
    }
}

/// Writing.
impl SledStore {
    /// Writes records as they are, all or none.
    pub(in crate::store) fn put(
        &self,
        records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), StoreError> {
        self.unless_failed(|| {
            let mut pending = self.pending();
            for (key, value) in records {
                self.replace(&mut pending, key, value)?;
            }
            self.apply(&mut pending)
        })
    }

    /// Does nothing if something has failed before, and remembers if this fails.
    fn unless_failed<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.failed.get() {
            Some(error) => Err(error.clone()),
            None => {
                work().map_err(|e| self.database.located(e)).inspect_err(|error| drop(self.failed.set(error.clone())))
            }
        }
    }

    /// Adds the writes of a decision to what is pending. If that would exceed a batch, the earlier ones go first.
    fn write(&self, facts: &[Fact]) -> Result<(), StoreError> {
        let writes = codec::writes(facts);
        let mut pending = self.pending();
        if pending.bytes() + writes.iter().map(size).sum::<usize>() > MAX_UNSYNCED {
            self.write_pending(&mut pending)?;
        }
        for write in writes {
            match write {
                Write::New(key, value) => {
                    let parts = pieces::split(&key, value);
                    self.insert(&mut pending, key, parts)?;
                }
                Write::Put(key, value) => self.replace(&mut pending, key, value)?,
                Write::Remove(key) => {
                    let db = self.database.sled();
                    pending.trim(db, &key, None)?;
                    pending.remove(db, key)?;
                }
            }
        }
        Ok(())
    }

    /// Writes a value that may replace another.
    fn replace(&self, pending: &mut Pending, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        let (db, parts) = (self.database.sled(), pieces::split(&key, value));
        pending.trim(db, &key, Some(&parts.first))?;
        pending.discount(db, &key)?;
        self.insert(pending, key, parts)
    }

    /// Writes a value under a key that the tally does not count. The pieces of a large one are written at once.
    fn insert(&self, pending: &mut Pending, key: Vec<u8>, parts: pieces::Parts) -> Result<(), StoreError> {
        let (mut ahead, mut bytes) = (sled::Batch::default(), 0);
        for (key, piece) in parts.further {
            pending.keep_piece(&key);
            bytes += key.len() + piece.len();
            ahead.insert(key, piece);
            if bytes > MAX_UNSYNCED / 2 {
                self.database.apply(std::mem::take(&mut ahead), std::mem::take(&mut bytes))?;
            }
        }
        self.database.apply(ahead, bytes)?;
        pending.add(key, parts.first);
        Ok(())
    }

    /// Removes records of a deleted search, then pieces of them, which without their records are ignored.
    fn remove_some(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        let mut pending = self.pending();
        self.write_pending(&mut pending)?;
        if self.moment().is_some() {
            return Ok(Cleared::Later);
        }
        let records = keys::belonging(search);
        let pieces = records.each_ref().map(|prefix| pieces::prefix(prefix));
        let mut left = Allowance { records: CLEARED, bytes: MAX_UNSYNCED / 2 };
        for prefix in records.iter().chain(&pieces) {
            pending.remove_some(self.database.sled(), prefix, &mut left)?;
        }
        Ok(if left.is_used_up() { Cleared::Some } else { Cleared::All })
    }

    /// Hands the database what is pending.
    fn write_pending(&self, pending: &mut Pending) -> Result<(), StoreError> {
        if pending.bytes() > 0 {
            faults::check(Point::CommitBefore)?;
            self.apply(pending)?;
            faults::check(Point::CommitAfter)?;
        }
        Ok(())
    }

    /// Hands the database what is pending, in one batch. A moment that is being read first keeps the old values.
    fn apply(&self, pending: &mut Pending) -> Result<(), StoreError> {
        let bytes = pending.bytes();
        if bytes == 0 {
            return Ok(());
        }
        let mut moment = self.moment();
        if let Some(moment) = &mut *moment {
            moment.keep(self.database.sled(), pending.keys());
        }
        self.database.apply(pending.take(), bytes)
    }

    /// Notes in the mark file that what the database has on the disk is acknowledged.
    fn acknowledge(&self, mark: Mark) -> Result<(), StoreError> {
        let mut file = self.mark();
        file.as_mut().ok_or_else(|| failed("it is unknown what was acknowledged"))?.advance(mark)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A panic under this lock would be a bug of ours; what was decided by then stays as it is.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> MutexGuard<'_, Option<Moment>> {
        // A panic under this lock would be a bug of ours; what is read is added up at its end.
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self) -> MutexGuard<'_, Option<MarkFile>> {
        // It changes only after everything has succeeded.
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // Callers that need it on the disk have synced.
        let _ = self.unless_failed(|| self.write_pending(&mut self.pending()));
    }
}

/// The bytes that a write adds to what is pending: at most one piece of its value.
fn size(write: &Write) -> usize {
    match write {
        Write::New(key, value) | Write::Put(key, value) => key.len() + value.len().min(pieces::PIECE),
        Write::Remove(key) => key.len(),
    }
}

impl Moments for SledStore {
    fn begin_moment(&self, most: usize) -> Result<(Arc<()>, Mark), StreamError> {
        let mut pending = self.pending();
        self.unless_failed(|| self.write_pending(&mut pending))?;
        let mut moment = self.moment();
        if moment.is_some() {
            return Err(StreamError::Busy);
        }
        let begun = moment.insert(Moment::new(pending.mark(), most));
        Ok((begun.name.clone(), begun.mark))
    }

    fn next_of_moment(&self, name: &Arc<()>) -> Result<Vec<Whole>, StreamError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone().into());
        }
        let mut moment = self.moment();
        let moment = moment.as_mut().filter(|moment| Arc::ptr_eq(&moment.name, name));
        let moment = moment.ok_or_else(|| failed("it was reopened while it was read"))?;
        moment.next(self.database.sled()).map_err(|e| match e {
            StreamError::Store(e) => self.database.located(e).into(),
            e => e,
        })
    }

    fn judge_moment(&self, mark: &Mark, found: &Tally) -> Result<(), StreamError> {
        if mark.tally == *found { Ok(()) } else { Err(self.lost(mark, found, 0).into()) }
    }

    fn end_moment(&self, name: &Arc<()>) {
        self.moment().take_if(|moment| Arc::ptr_eq(&moment.name, name));
    }
}

impl Store for SledStore {
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        self.unless_failed(|| self.write_pending(&mut self.pending()))?;
        self.judge(&self.replay_any(each)?)
    }

    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        self.unless_failed(|| self.write(facts))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.unless_failed(|| {
            let mark = {
                let mut pending = self.pending();
                self.write_pending(&mut pending)?;
                pending.mark()
            };
            faults::check(Point::FlushBefore)?;
            self.database.sync()?;
            faults::check(Point::FsyncAfter)?;
            self.acknowledge(mark)
        })
    }

    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        self.unless_failed(|| self.remove_some(search))
    }

    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        // They may belong to an evaluation that is still pending.
        self.unless_failed(|| self.write_pending(&mut self.pending()))?;
        let reader = Reader::new(self.database.sled());
        codec::thumbnails(&reader, search, candidate).map_err(|e| self.database.located(e))
    }

    fn back_up(&self, out: &mut dyn io::Write, progress: &mut Progress<'_>) -> Result<(), BackupError> {
        live_backup::write(self, out, progress)
    }
}
