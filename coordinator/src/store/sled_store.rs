//! The store on sled 0.34.
//!
//! sled's own `flush` ends in `sync_file_range` on Linux, which does not reach the disk's platter: [`SledStore::sync`]
//! therefore calls fsync on the database file after it. sled never syncs the names of its files: [`SledStore::open`] does.
//!
//! After an error of the database nothing more is written until it is opened again: the error does not tell what has
//! reached the disk, and what is decided on top of a wrong guess would be worse than nothing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use evocache_proto::domain::{CandidateId, SearchId};

use super::creation::{self, sync_folder};
use super::pending::Pending;
use super::{Records, Visit, Write, codec, pieces};
use crate::faults::{self, Point};
use crate::ports::{Fact, Store, StoreError};

/// The storage format that this program writes. It reads those before: 1 had values of any size in one piece, 2 a record
/// for every lease.
pub const FORMAT_VERSION: u64 = 3;

pub(super) const VERSION_KEY: &[u8] = b"!format";

/// How often a lock is looked at again, and how long after.
const LOOKS: u32 = 10;
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// Bytes of pages that sled keeps in memory. All that is asked for often is in the engine's state.
const CACHE: u64 = 8 * 1024 * 1024;

/// Bytes of keys and values that may be handed to the database without a sync, and in one batch. In the header of each segment of its log (512 KiB) sled
/// notes how far the log is stable, and believes it after a crash; but to sled, stable is what the system has, not what the
/// disk has. As long as no whole segment lies between two syncs, no such note is ever ahead of what it is believed for.
/// What sled writes is several times what it is given.
const UNSYNCED: usize = 64 * 1024;

/// Keeps records in a sled database.
#[derive(Debug)]
pub struct SledStore {
    db: sled::Db,
    file: File,
    /// What is decided and not yet in the database.
    pending: Mutex<Pending>,
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

impl SledStore {
    /// Opens the store in this folder, or makes one if there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        refuse_foreign(path)?;
        if !database_file(path).exists() {
            creation::create(path)?;
        }
        creation::clear_away(path).map_err(failed)?;
        remove_unfinished_snapshots(path).map_err(failed)?;
        let db = open_database(path)?;
        let Some(bytes) = sled::Tree::get(&db, VERSION_KEY).map_err(failed)? else {
            return Err(StoreError::Foreign { path: shown, found: "a sled database of another program".into() });
        };
        let found = <[u8; 8]>::try_from(&*bytes).map_or(0, u64::from_be_bytes);
        if !(1..=FORMAT_VERSION).contains(&found) {
            return Err(StoreError::Version { path: shown, found, supported: FORMAT_VERSION });
        }
        let file = File::open(database_file(path)).map_err(failed)?;
        sync_names(path).map_err(failed)?;
        let store = Self {
            db,
            file,
            pending: Mutex::default(),
            unsynced: AtomicUsize::new(0),
            failed: OnceLock::new(),
            unsure: AtomicBool::new(false),
        };
        if found == 1 {
            store.split_large_values()?;
        }
        if found < FORMAT_VERSION {
            // Format 2 is read as it is: only what is written from now on is for nobody older.
            store.db.insert(VERSION_KEY, &FORMAT_VERSION.to_be_bytes()).map_err(failed)?;
        }
        store.sync()?;
        Ok(store)
    }

    /// Whether something has failed: it takes nothing any more.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get().is_some()
    }

    /// Opens the store in this folder; makes none.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        refuse_foreign(path)?;
        if !database_file(path).exists() {
            return Err(StoreError::Foreign { path: path.display().to_string(), found: "there is no database".into() });
        }
        Self::open(path)
    }

    /// Whether the system may take for written what is not on the disk.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure.load(Ordering::Relaxed)
    }

    /// Every record in the order of the keys. The format version is none of them.
    pub(super) fn records(&self, each: &mut Visit<'_>) -> Result<(), StoreError> {
        for entry in self.db.iter() {
            let (key, value) = entry.map_err(failed)?;
            if &*key != VERSION_KEY && !pieces::is_further(&key) {
                let value = pieces::whole(&self.db, &key, value)?;
                each(&key, &value)?;
            }
        }
        Ok(())
    }

    /// From format 1 to 2. Cut off, it begins again: what is split already is small.
    fn split_large_values(&self) -> Result<(), StoreError> {
        for entry in self.db.iter() {
            let (key, value) = entry.map_err(failed)?;
            if value.len() > pieces::PIECE {
                self.put([(key.to_vec(), value.to_vec())])?;
            }
        }
        self.sync()
    }

    /// How many records there are. Reads all keys.
    pub(super) fn count(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        self.records(&mut |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Writes records as they are, all or none.
    pub(super) fn put(&self, records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        let mut pending = Pending::default();
        for (key, value) in records {
            self.replace(&mut pending, key, value)?;
        }
        self.apply(&mut pending)
    }

    /// Writes a value that may stand in the place of another.
    fn replace(&self, pending: &mut Pending, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        let parts = pieces::parts(&key, value);
        pieces::trim(&self.db, pending, &key, &parts)?;
        self.insert(pending, key, parts)
    }

    /// Writes a value. The further pieces of a large one are written at once.
    fn insert(&self, pending: &mut Pending, key: Vec<u8>, parts: pieces::Parts) -> Result<(), StoreError> {
        let mut ahead = Pending::default();
        for (key, piece) in parts.further {
            ahead.put(key, piece);
            if ahead.bytes() > UNSYNCED / 2 {
                self.apply(&mut ahead)?;
            }
        }
        self.apply(&mut ahead)?;
        pending.put(key, parts.first);
        Ok(())
    }

    /// Hands pending writes to the database, in one batch.
    fn apply(&self, pending: &mut Pending) -> Result<(), StoreError> {
        let bytes = pending.bytes();
        if bytes == 0 {
            return Ok(());
        }
        let unsynced = self.unsynced.fetch_add(bytes, Ordering::Relaxed);
        if unsynced > 0 && unsynced + bytes > UNSYNCED {
            self.sync_file()?;
            self.unsynced.store(bytes, Ordering::Relaxed);
        }
        self.db.apply_batch(pending.take()).map_err(failed)
    }

    fn sync_file(&self) -> Result<(), StoreError> {
        // Before, so that what is written meanwhile counts.
        self.unsynced.store(0, Ordering::Relaxed);
        self.db.flush().map_err(failed)?;
        faults::check(Point::FlushAfter)?;
        faults::check(Point::FsyncBefore)?;
        self.file.sync_data().inspect_err(|_| self.unsure.store(true, Ordering::Relaxed)).map_err(failed)
    }

    /// Does nothing if something has failed before, and remembers if this fails.
    fn unless_failed(&self, work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        match self.failed.get() {
            Some(error) => Err(error.clone()),
            None => work().inspect_err(|error| drop(self.failed.set(error.clone()))),
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
                Write::Remove(key) => pieces::remove(&self.db, &mut pending, key)?,
                Write::RemovePrefix(prefix) => {
                    pending.remove_prefix(&self.db, &prefix)?;
                    pending.remove_prefix(&self.db, &pieces::further(&prefix))?;
                }
            }
        }
        Ok(())
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

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // A panic in between would be a bug of ours; what was decided by then is as it was.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
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
        Write::Remove(key) | Write::RemovePrefix(key) => key.len(),
    }
}

/// A snapshot that was being written when the process died: sled would take it for the newest, and the database for torn.
fn remove_unfinished_snapshots(path: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes durable what sled changes when it opens a database: which snapshot there is, and what is no longer there.
fn sync_names(path: &Path) -> std::io::Result<()> {
    sync_folder(&path.join("blobs"))?;
    sync_folder(path)
}

/// sled answers most damage with an error and some with a panic: both are told as what they are.
///
/// A database that this process has just closed is locked for a moment longer, while sled's threads end: a lock is
/// looked at again before it is believed.
pub(super) fn open_database(path: &Path) -> Result<sled::Db, StoreError> {
    let mut patience = LOOKS;
    loop {
        let opened = std::panic::catch_unwind(|| sled::Config::new().path(path).cache_capacity(CACHE).open());
        let opened = opened.map_err(|_| torn(path, "the database gave up on it"))?;
        match opened.map_err(|e| open_error(path, &e)) {
            Err(StoreError::Locked { .. }) if patience > 0 => patience -= 1,
            result => return result,
        }
        std::thread::sleep(LOOK);
    }
}

fn torn(path: &Path, problem: impl std::fmt::Display) -> StoreError {
    StoreError::Torn { path: path.display().to_string(), problem: problem.to_string() }
}

/// Where a compaction keeps the old store until the new one is in its place.
pub fn set_aside(path: &Path) -> PathBuf {
    // As components: a slash at the end would put the new name inside.
    let mut name = path.components().collect::<PathBuf>().into_os_string();
    name.push(".old");
    name.into()
}

pub(super) fn database_file(path: &Path) -> PathBuf {
    path.join("db")
}

/// A folder with files but no database is somebody else's: sled would make a database in the middle of them.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let foreign = |found: String| StoreError::Foreign { path: path.display().to_string(), found };
    match std::fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            Some(Ok(first)) if !database_file(path).exists() && !creation::is_unfinished(path) => {
                Err(foreign(format!("it holds '{}' and no database", first.file_name().to_string_lossy())))
            }
            _ => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Err(foreign("a file, not a folder".into())),
        // A new store in this place would hide the old one.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && database_file(&set_aside(path)).exists() => {
            let aside = set_aside(path).display().to_string();
            Err(StoreError::SetAside { path: path.display().to_string(), aside })
        }
        // Not there yet: it is made.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(format!("{}: {e}", path.display()))),
    }
}

fn open_error(path: &Path, error: &sled::Error) -> StoreError {
    let shown = path.display().to_string();
    match error {
        // sled wraps the failed file lock in a text of its own.
        sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => StoreError::Locked { path: shown },
        sled::Error::Corruption { .. } => torn(path, error),
        sled::Error::Unsupported(_) => StoreError::Foreign { path: shown, found: error.to_string() },
        _ => failed(format!("{shown}: {error}")),
    }
}

impl Records for sled::Db {
    fn scan(&self, prefix: &[u8], each: &mut Visit<'_>) -> Result<(), StoreError> {
        for entry in self.scan_prefix(prefix) {
            let (key, value) = entry.map_err(failed)?;
            each(&key, &pieces::whole(self, &key, value)?)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = sled::Tree::get(self, key).map_err(failed)?;
        value.map(|value| Ok(pieces::whole(self, key, value)?.to_vec())).transpose()
    }
}

impl Store for SledStore {
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        self.unless_failed(|| self.write_pending(&mut self.pending()))?;
        codec::replay(&self.db, each)
    }

    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        self.unless_failed(|| self.write(facts))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.unless_failed(|| {
            self.write_pending(&mut self.pending())?;
            faults::check(Point::FlushBefore)?;
            self.sync_file()?;
            faults::check(Point::FsyncAfter)
        })
    }

    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        // They may be of an evaluation that was decided a moment ago.
        self.unless_failed(|| self.write_pending(&mut self.pending()))?;
        codec::thumbnails(&self.db, search, candidate)
    }
}
