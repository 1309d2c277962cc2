//! The store of a coordinator that runs: one that is opened anew when it has failed, and tells how much room it has.
//!
//! A database that could not write does not know what is on disk, and is of no more use; opened anew it does. Not so after a sync
//! of its file that failed: the system then takes for written what is not, and somebody has to look at the disk. Absent: when
//! to try, which is the engine's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use evocache_proto::domain::{CandidateId, SearchId};

use super::SledStore;
use super::backup::{self, StreamError};
use super::moment::Steps;
#[cfg(unix)]
use crate::ports::Room;
use crate::ports::{BackupError, Cleared, Fact, Progress, Store, StoreError};

/// A store in a folder.
#[derive(Debug)]
pub struct ReopeningStore {
    path: PathBuf,
    /// Bytes that are to stay free on its disk; 0: nobody minds.
    reserve: u64,
    /// `None` after a failure, while it cannot be opened.
    inner: RwLock<Option<SledStore>>,
}

impl ReopeningStore {
    /// Opens the store in this folder, or makes one if there is none. With `accept_loss`, one that has lost what was
    /// acknowledged is taken as it is, this once.
    pub fn open(path: &Path, reserve: u64, accept_loss: bool) -> Result<Self, StoreError> {
        let store = if accept_loss { SledStore::open_accepting_loss(path) } else { SledStore::open(path) };
        Ok(Self { path: path.to_owned(), reserve, inner: RwLock::new(Some(store?)) })
    }

    fn inner(&self) -> RwLockReadGuard<'_, Option<SledStore>> {
        // It is replaced whole.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T, E: From<StoreError>>(&self, ask: impl FnOnce(&SledStore) -> Result<T, E>) -> Result<T, E> {
        let closed = || StoreError::Failed("it failed, and could not be opened again yet".into()).into();
        self.inner().as_ref().ok_or_else(closed).and_then(ask)
    }
}

/// Whoever reads it part by part holds it no longer than a part takes: it can be opened again in between.
impl Steps for ReopeningStore {
    fn step<T>(&self, ask: impl FnOnce(&SledStore) -> Result<T, StreamError>) -> Result<T, StreamError> {
        self.with(ask)
    }
}

impl Store for ReopeningStore {
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError> {
        self.with(|store| store.replay(each))
    }

    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        self.with(|store| store.commit(facts))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.with(SledStore::sync)
    }

    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError> {
        self.with(|store| store.clear(search))
    }

    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        self.with(|store| store.thumbnails(search, candidate))
    }

    fn back_up(&self, out: &mut dyn io::Write, progress: &mut Progress<'_>) -> Result<(), BackupError> {
        backup::write_moment(self, out, progress)
    }

    fn reopen(&self) -> Result<bool, StoreError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.as_ref().is_some_and(|store| !store.has_failed()) {
            return Ok(false);
        }
        if inner.as_ref().is_some_and(SledStore::is_unsure) {
            let problem = "its disk did not take what it was to keep; look at the disk, then restart the coordinator";
            return Err(StoreError::Failed(problem.into()));
        }
        // First of all: its lock goes with it.
        *inner = None;
        // None is made: an empty folder is one whose disk is gone.
        *inner = Some(SledStore::open_existing(&self.path)?);
        Ok(true)
    }

    #[cfg(unix)]
    fn room(&self) -> Option<Room> {
        let disk = rustix::fs::statvfs(&self.path).ok().filter(|_| self.reserve > 0)?;
        Some(Room { left: disk.f_bavail.saturating_mul(disk.f_frsize), reserve: self.reserve })
    }
}
