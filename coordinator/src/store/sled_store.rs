//! The store on sled 0.34.
//!
//! sled's own `flush` ends in `sync_file_range` on Linux, which does not reach the disk's platter: [`SledStore::sync`]
//! therefore calls fsync on the database file after it, and then writes the `mark` that says so. Opening is `opening`'s.
//!
//! After an error of the database nothing more is written until it is opened again: the error does not tell what has
//! reached the disk, and what is decided on top of a wrong guess would be worse than nothing.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use evocache_proto::domain::{CandidateId, SearchId};

use super::backup::{self, StreamError};
use super::mark::{Mark, MarkFile};
use super::moment::{Moment, Steps, Whole};
use super::pending::{Pending, Room};
use super::tally::Tally;
use super::{Records, Visit, Write, codec, pieces};
use crate::faults::{self, Point};
use crate::ports::{BackupError, Cleared, Fact, Loss, Progress, Store, StoreError};

/// The storage format that this program writes and reads.
pub const FORMAT_VERSION: u64 = 4;

pub(super) const VERSION_KEY: &[u8] = b"!format";
pub(super) const MARK_KEY: &[u8] = b"!mark";

/// Bytes of keys and values that may be handed to the database without a sync, and in one batch. In the header of each segment of its log (512 KiB) sled
/// notes how far the log is stable, and believes it after a crash; but to sled, stable is what the system has, not what the
/// disk has. As long as no whole segment lies between two syncs, no such note is ever ahead of what it is believed for.
/// What sled writes is several times what it is given.
const UNSYNCED: usize = 64 * 1024;

/// Records of a deleted search that are removed at once, if they are small. sled takes some 50 µs for each.
const CLEARED: usize = 256;

/// Keeps records in a sled database.
#[derive(Debug)]
pub struct SledStore {
    path: PathBuf,
    db: sled::Db,
    file: File,
    /// What is decided and not yet in the database.
    pending: Mutex<Pending>,
    /// What was acknowledged. `None`: that is not known, and nothing may be acknowledged.
    mark: Mutex<Option<MarkFile>>,
    /// What is being read while others write. Locked after `pending`.
    moment: Mutex<Option<Moment>>,
    /// Bytes of keys and values since the last sync.
    unsynced: AtomicUsize,
    /// The first error of a commit or a sync.
    failed: OnceLock<StoreError>,
    /// The disk did not take what was to be synced.
    unsure: AtomicBool,
}

pub(super) fn failed(e: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(e.to_string())
}

/// An error of the database: of what is in its files, or of the disk. Where it is, [`SledStore::located`] knows.
pub(super) fn database(e: sled::Error) -> StoreError {
    let torn = || StoreError::Torn { path: String::new(), problem: e.to_string() };
    match &e {
        sled::Error::Corruption { .. } | sled::Error::Unsupported(_) | sled::Error::ReportableBug(_) => torn(),
        sled::Error::Io(io) if matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => torn(),
        sled::Error::Io(_) | sled::Error::CollectionNotFound(_) => failed(e),
    }
}

/// Takes a record's key, and its value as it comes.
type Look<'a, V> = dyn FnMut(&[u8], V) -> Result<(), StoreError> + 'a;

impl SledStore {
    /// A database that was opened, as its mark has it, and what was acknowledged of it.
    pub(super) fn new(path: &Path, db: sled::Db, file: File, stored: Mark, mark: Option<MarkFile>) -> Self {
        Self {
            path: path.to_owned(),
            db,
            file,
            pending: Mutex::new(Pending::on(stored)),
            mark: Mutex::new(mark),
            moment: Mutex::new(None),
            unsynced: AtomicUsize::new(0),
            failed: OnceLock::new(),
            unsure: AtomicBool::new(false),
        }
    }

    /// Whether something has failed: it takes nothing any more.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Whether the system may take for written what is not on the disk.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure.load(Ordering::Relaxed)
    }

    /// Every record that can be read or not, in the order of the keys, and what they add up to. Says nothing of what that
    /// should be.
    pub(super) fn pass(&self, each: &mut Look<'_, Result<sled::IVec, StoreError>>) -> Result<Tally, StoreError> {
        let folding = Folding::new(&self.db);
        folding.heads(&mut |key, value| each(key, pieces::whole(&self.db, key, value))).map_err(|e| self.located(e))?;
        Ok(folding.tally.get())
    }

    /// Tells all facts, whether they are those that were acknowledged or not, and what their records add up to.
    pub(super) fn replay_any(&self, each: &mut dyn FnMut(Fact)) -> Result<Tally, StoreError> {
        let folding = Folding::new(&self.db);
        let replayed = codec::replay(&folding, each).and_then(|()| folding.pass(codec::THUMBNAILS));
        replayed.map_err(|e| self.located(e))?;
        Ok(folding.tally.get())
    }

    /// All keys with this prefix.
    pub(super) fn keys(&self, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        let keys = self.db.scan_prefix(prefix).keys();
        keys.map(|key| key.map(|key| key.to_vec()).map_err(|e| self.located(database(e)))).collect()
    }

    /// Every record in the order of the keys. An error at the end if they are not those that were acknowledged.
    pub(super) fn records(&self, each: &mut Visit<'_>) -> Result<(), StoreError> {
        self.judge(&self.pass(&mut |key, value| each(key, &value?))?)
    }

    /// What all records add up to. Large values are not read.
    pub(super) fn tally(&self) -> Result<Tally, StoreError> {
        let folding = Folding::new(&self.db);
        folding.heads(&mut |_, _| Ok(())).map_err(|e| self.located(e))?;
        Ok(folding.tally.get())
    }

    /// How many records there are to be.
    pub(super) fn count(&self) -> u64 {
        self.expected().1.tally.holding.records
    }

    /// The database's own mark, and that of what was acknowledged or, if that is newer, written.
    fn expected(&self) -> (Mark, Mark) {
        let stored = self.pending().mark();
        let acknowledged = self.mark().as_ref().map(MarkFile::newest);
        (stored, acknowledged.filter(|mark| mark.sequence >= stored.sequence).unwrap_or(stored))
    }

    /// Holds what was found against what was acknowledged.
    pub(super) fn judge(&self, found: &Tally) -> Result<(), StoreError> {
        let (stored, expected) = self.expected();
        if stored == expected && expected.tally == *found {
            return Ok(());
        }
        let writes = expected.sequence - stored.sequence;
        let loss = Loss { acknowledged: expected.tally.holding, found: found.holding, writes };
        Err(StoreError::Lost { path: self.path.display().to_string(), loss: Box::new(loss) })
    }

    /// Takes what there is for all that ever was.
    pub(super) fn adopt(&self, found: Tally) -> Result<(), StoreError> {
        let sequence = self.expected().1.sequence;
        let mut pending = self.pending();
        *pending = Pending::on(Mark { sequence, tally: found });
        let mut batch = pending.take();
        batch.insert(VERSION_KEY, &FORMAT_VERSION.to_be_bytes());
        self.db.apply_batch(batch).map_err(database)?;
        self.sync_file()?;
        let mut file = self.mark();
        match &mut *file {
            Some(file) => file.advance(pending.mark()),
            None => {
                *file = Some(MarkFile::create(&self.path, pending.mark()).map_err(failed)?);
                Ok(())
            }
        }
    }

    /// Writes records as they are, all or none.
    pub(super) fn put(&self, records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        self.unless_failed(|| {
            let mut pending = self.pending();
            for (key, value) in records {
                self.replace(&mut pending, key, value)?;
            }
            self.apply(&mut pending)
        })
    }

    /// Writes a value that may stand in the place of another.
    fn replace(&self, pending: &mut Pending, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        let parts = pieces::parts(&key, value);
        pieces::trim(&self.db, pending, &key, Some(&parts.first))?;
        pending.discount(&self.db, &key)?;
        self.insert(pending, key, parts)
    }

    /// Writes a value where none is counted. The pieces of a large one are written at once.
    fn insert(&self, pending: &mut Pending, key: Vec<u8>, parts: pieces::Parts) -> Result<(), StoreError> {
        let (mut ahead, mut bytes) = (sled::Batch::default(), 0);
        for (key, piece) in parts.further {
            pending.keep_piece(&key);
            bytes += key.len() + piece.len();
            ahead.insert(key, piece);
            if bytes > UNSYNCED / 2 {
                self.hand_over(std::mem::take(&mut ahead), std::mem::take(&mut bytes))?;
            }
        }
        self.hand_over(ahead, bytes)?;
        pending.add(key, parts.first);
        Ok(())
    }

    /// Hands pending writes to the database, in one batch.
    fn apply(&self, pending: &mut Pending) -> Result<(), StoreError> {
        let bytes = pending.bytes();
        if bytes == 0 {
            return Ok(());
        }
        let mut moment = self.moment();
        if let Some(moment) = &mut *moment {
            moment.keep(&self.db, pending.keys());
        }
        self.hand_over(pending.take(), bytes)
    }

    /// Begins to keep what is there for whoever reads it while others write: the name of this moment, and what it adds up to.
    pub(super) fn begin_moment(&self, most: usize) -> Result<(Arc<()>, Mark), StreamError> {
        let mut pending = self.pending();
        self.unless_failed(|| self.write_pending(&mut pending))?;
        let mut moment = self.moment();
        if moment.is_some() {
            return Err(StreamError::Busy);
        }
        let begun = moment.insert(Moment::new(pending.mark(), most));
        Ok((begun.name.clone(), begun.mark))
    }

    /// The next records of the moment with this name; none if all were read.
    pub(super) fn next_of_moment(&self, name: &Arc<()>) -> Result<Vec<Whole>, StreamError> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone().into());
        }
        let mut moment = self.moment();
        let moment = moment.as_mut().filter(|moment| Arc::ptr_eq(&moment.name, name));
        let moment = moment.ok_or_else(|| failed("it was opened again while it was read"))?;
        moment.next(&self.db).map_err(|e| match e {
            StreamError::Store(e) => self.located(e).into(),
            e => e,
        })
    }

    /// Holds what was read of a moment against what there was.
    pub(super) fn judge_moment(&self, mark: &Mark, found: &Tally) -> Result<(), StoreError> {
        if mark.tally == *found {
            return Ok(());
        }
        let loss = Loss { acknowledged: mark.tally.holding, found: found.holding, writes: 0 };
        Err(StoreError::Lost { path: self.path.display().to_string(), loss: Box::new(loss) })
    }

    /// Keeps nothing more for the moment with this name.
    pub(super) fn end_moment(&self, name: &Arc<()>) {
        self.moment().take_if(|moment| Arc::ptr_eq(&moment.name, name));
    }

    fn hand_over(&self, batch: sled::Batch, bytes: usize) -> Result<(), StoreError> {
        if bytes == 0 {
            return Ok(());
        }
        let unsynced = self.unsynced.fetch_add(bytes, Ordering::Relaxed);
        if unsynced > 0 && unsynced + bytes > UNSYNCED {
            self.sync_file()?;
            self.unsynced.store(bytes, Ordering::Relaxed);
        }
        self.db.apply_batch(batch).map_err(database)
    }

    fn sync_file(&self) -> Result<(), StoreError> {
        // Before, so that what is written meanwhile counts.
        self.unsynced.store(0, Ordering::Relaxed);
        self.db.flush().map_err(database)?;
        faults::check(Point::FlushAfter)?;
        faults::check(Point::FsyncBefore)?;
        self.file.sync_data().inspect_err(|_| self.unsure.store(true, Ordering::Relaxed)).map_err(failed)
    }

    /// Does nothing if something has failed before, and remembers if this fails.
    fn unless_failed<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.failed.get() {
            Some(error) => Err(error.clone()),
            None => work().map_err(|e| self.located(e)).inspect_err(|error| drop(self.failed.set(error.clone()))),
        }
    }

    /// Makes the writes of a decision pending, beside those of others. Those go first where there would be too many.
    fn write(&self, facts: &[Fact]) -> Result<(), StoreError> {
        let writes = codec::writes(facts);
        let mut pending = self.pending();
        if pending.bytes() + writes.iter().map(size).sum::<usize>() > UNSYNCED {
            self.write_pending(&mut pending)?;
        }
        for write in writes {
            match write {
                Write::New(key, value) => {
                    let parts = pieces::parts(&key, value);
                    self.insert(&mut pending, key, parts)?;
                }
                Write::Put(key, value) => self.replace(&mut pending, key, value)?,
                Write::Remove(key) => {
                    pieces::trim(&self.db, &mut pending, &key, None)?;
                    pending.remove(&self.db, key)?;
                }
            }
        }
        Ok(())
    }

    /// Removes records of a deleted search, then pieces of them: without a record those are of no consequence.
    fn remove_some(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        let mut pending = self.pending();
        self.write_pending(&mut pending)?;
        if self.moment().is_some() {
            return Ok(Cleared::Later);
        }
        let records = codec::belonging(search);
        let further = records.each_ref().map(|prefix| pieces::further(prefix));
        let mut room = Room { records: CLEARED, bytes: UNSYNCED / 2 };
        for prefix in records.iter().chain(&further) {
            pending.remove_some(&self.db, prefix, &mut room)?;
        }
        Ok(if room.is_used_up() { Cleared::Some } else { Cleared::All })
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

    /// Notes beside the database that what it has on the disk is acknowledged.
    fn acknowledge(&self, mark: Mark) -> Result<(), StoreError> {
        let mut file = self.mark();
        let file = file.as_mut().ok_or_else(|| failed("what was acknowledged is not known"))?;
        file.advance(mark).inspect_err(|_| {
            self.unsure.fetch_or(file.unsure, Ordering::Relaxed);
        })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A panic in between would be a bug of ours; what was decided by then is as it was.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> MutexGuard<'_, Option<Moment>> {
        // A panic in between would be a bug of ours, and what is read is added up at its end.
        self.moment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self) -> MutexGuard<'_, Option<MarkFile>> {
        // It changes only after all has gone well.
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error with the name of this store.
    fn located(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Torn { path, problem } if path.is_empty() => {
                StoreError::Torn { path: self.path.display().to_string(), problem }
            }
            error => error,
        }
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        // Whoever wants to know whether it is on disk has synced.
        let _ = self.unless_failed(|| self.write_pending(&mut self.pending()));
    }
}

/// What a write adds to what is pending: at most a piece of its value.
fn size(write: &Write) -> usize {
    match write {
        Write::New(key, value) | Write::Put(key, value) => key.len() + value.len().min(pieces::PIECE),
        Write::Remove(key) => key.len(),
    }
}

/// A database whose records are added up as they are read.
struct Folding<'a> {
    db: &'a sled::Db,
    tally: Cell<Tally>,
}

impl<'a> Folding<'a> {
    fn new(db: &'a sled::Db) -> Self {
        Self { db, tally: Cell::default() }
    }

    fn add(&self, key: &[u8], value: &[u8]) {
        let mut tally = self.tally.get();
        tally.add(key, value);
        self.tally.set(tally);
    }

    /// All records as they are in the database: of large ones the heads. Neither the format's version nor the mark is one.
    fn heads(&self, each: &mut Look<'_, sled::IVec>) -> Result<(), StoreError> {
        for entry in self.db.range(..pieces::further(b"")) {
            let (key, value) = entry.map_err(database)?;
            if key.first() != Some(&b'!') {
                self.add(&key, &value);
                each(&key, value)?;
            }
        }
        Ok(())
    }
}

impl Records for Folding<'_> {
    fn scan(&self, prefix: &[u8], each: &mut Visit<'_>) -> Result<(), StoreError> {
        for entry in self.db.scan_prefix(prefix) {
            let (key, value) = entry.map_err(database)?;
            self.add(&key, &value);
            each(&key, &pieces::whole(self.db, &key, value)?)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(value) = self.db.get(key).map_err(database)? else { return Ok(None) };
        self.add(key, &value);
        Ok(Some(pieces::whole(self.db, key, value)?.to_vec()))
    }

    fn pass(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.db.scan_prefix(prefix).try_for_each(|entry| {
            let (key, value) = entry.map_err(database)?;
            self.add(&key, &value);
            Ok(())
        })
    }
}

impl Steps for SledStore {
    fn step<T>(&self, ask: impl FnOnce(&Self) -> Result<T, StreamError>) -> Result<T, StreamError> {
        ask(self)
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
            self.sync_file()?;
            faults::check(Point::FsyncAfter)?;
            self.acknowledge(mark)
        })
    }

    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        self.unless_failed(|| self.remove_some(search))
    }

    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        // They may be of an evaluation that was decided a moment ago.
        self.unless_failed(|| self.write_pending(&mut self.pending()))?;
        codec::thumbnails(&Folding::new(&self.db), search, candidate).map_err(|e| self.located(e))
    }

    fn back_up(&self, out: &mut dyn io::Write, progress: &mut Progress<'_>) -> Result<(), BackupError> {
        backup::write_moment(self, out, progress)
    }
}
