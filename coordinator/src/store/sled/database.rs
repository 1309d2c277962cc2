//! An open sled database: opens it, hands it batches, and puts them on the disk.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::errors::{failed, located, of_sled, torn};
use super::files::{database_file, remove_unfinished_snapshots};
use super::mark::MarkFile;
use crate::faults::{self, Point};
use crate::ports::StoreError;

/// The record of the storage format. Like the mark it starts with `!`, which no kind of record does.
pub(super) const VERSION_KEY: &[u8] = b"!format";

/// Bytes of keys and values that go to sled without a sync between them, and at most into one batch.
///
/// sled notes in the header of each segment of its log (512 KiB) how far the log is stable, and relies on it after a crash;
/// but by stable it means handed to the system, not on the disk. As long as no whole segment lies between two syncs, such a
/// note never claims more than is on the disk. sled writes several times the bytes that it is given.
pub(super) const MAX_UNSYNCED: usize = 64 * 1024;

/// Bytes of pages that sled keeps in memory. The engine's state has everything that is read often.
const CACHE: u64 = 8 * 1024 * 1024;

/// How often a locked database is tried again, and after how long.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: std::time::Duration = std::time::Duration::from_millis(50);

/// An open database and its file.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    sled: sled::Db,
    file: File,
    /// Bytes of keys and values since the last sync.
    unsynced: AtomicUsize,
    /// A sync failed: the system may take for written what is not on the disk.
    sync_failed: AtomicBool,
}

impl Database {
    /// Takes an open database of the store in this folder.
    pub(super) fn new(path: &Path, sled: sled::Db) -> Result<Self, StoreError> {
        let file = File::open(database_file(path)).map_err(failed)?;
        let (unsynced, sync_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Self { path: path.to_owned(), sled, file, unsynced, sync_failed })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn sled(&self) -> &sled::Db {
        &self.sled
    }

    /// Whether a sync failed. After that, a later sync that succeeds says nothing about what it was to write.
    pub(super) fn sync_failed(&self) -> bool {
        self.sync_failed.load(Ordering::Relaxed)
    }

    /// Hands sled a batch of so many bytes, after a sync if too many bytes would be unsynced.
    pub(super) fn apply(&self, batch: sled::Batch, bytes: usize) -> Result<(), StoreError> {
        if bytes == 0 {
            return Ok(());
        }
        let unsynced = self.unsynced.fetch_add(bytes, Ordering::Relaxed);
        if unsynced > 0 && unsynced + bytes > MAX_UNSYNCED {
            self.sync()?;
            self.unsynced.store(bytes, Ordering::Relaxed);
        }
        self.sled.apply_batch(batch).map_err(of_sled)
    }

    /// Returns once every batch handed over before is on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        // Before the flush, so that what is written meanwhile counts as unsynced.
        self.unsynced.store(0, Ordering::Relaxed);
        self.sled.flush().map_err(of_sled)?;
        faults::check(Point::FlushAfter)?;
        faults::check(Point::FsyncBefore)?;
        self.file.sync_data().inspect_err(|_| self.sync_failed.store(true, Ordering::Relaxed)).map_err(failed)
    }

    /// Adds this store's path to an error that has none.
    pub(super) fn located(&self, error: StoreError) -> StoreError {
        located(&self.path, error)
    }
}

/// Opens sled on a folder.
///
/// sled answers most damage with an error and some with a panic; both are reported as damage. It repairs the end of its log
/// before it reads it, so what stopped the first attempt may then be gone: there is a second one. What is found is then
/// compared with the mark, as always.
///
/// A database that this process has just closed stays locked until sled's threads end: a lock is tried again for a while.
pub(super) fn open(path: &Path) -> Result<sled::Db, StoreError> {
    let (mut patience, mut tries) = (LOCK_TRIES, 2);
    loop {
        let opened = std::panic::catch_unwind(|| sled::Config::new().path(path).cache_capacity(CACHE).open());
        let opened = opened.map_err(|_| torn(path, "sled panicked while it opened it"));
        match opened.and_then(|opened| opened.map_err(|e| open_error(path, &e))) {
            Err(StoreError::Locked { .. }) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(LOCK_WAIT);
            }
            Err(StoreError::Torn { .. }) if tries > 1 => {
                tries -= 1;
                remove_unfinished_snapshots(path).map_err(failed)?;
            }
            result => return result,
        }
    }
}

/// An error of a database that is being opened.
pub(super) fn open_error(path: &Path, error: &sled::Error) -> StoreError {
    let shown = path.display().to_string();
    match error {
        // sled reports the failed file lock in words of its own.
        sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => StoreError::Locked { path: shown },
        sled::Error::Unsupported(_) if MarkFile::open(path).is_err() => {
            StoreError::Foreign { path: shown, found: error.to_string() }
        }
        error => match of_sled(error.clone()) {
            error @ StoreError::Torn { .. } => located(path, error),
            _ => failed(format!("{shown}: {error}")),
        },
    }
}
