//! The store of a running coordinator: it can be reopened after it has failed, and reports the free space on its disk.
//!
//! A database that could not write does not know what is on the disk; opened again it does. After a failed sync of one of its
//! files that is not so: the system takes for written what is not, and somebody has to look at the disk.
//!
//! Does not decide when to reopen: that is the engine's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use evocache_proto::domain::{CandidateId, SearchId};

use super::live_backup::{self, Moments};
use super::mark::Mark;
use super::moment::Whole;
use super::store::SledStore;
use super::tally::Tally;
#[cfg(unix)]
use crate::ports::Room;
use crate::ports::{BackupError, Cleared, Fact, Progress, Store, StoreError};
use crate::store::stream::StreamError;

/// A store that can be reopened.
#[derive(Debug)]
pub struct ReopeningStore {
    path: PathBuf,
    /// Bytes that are to stay free on its disk; 0: the free space does not matter.
    reserve: u64,
    /// `None` after a failure, until it can be opened again.
    inner: RwLock<Option<SledStore>>,
}

impl ReopeningStore {
    /// Opens the store in this folder, or creates one if there is none. With `accept_loss`, a store that has lost
    /// acknowledged records is accepted as it is; a reopening accepts no loss.
    pub fn open(path: &Path, reserve: u64, accept_loss: bool) -> Result<Self, StoreError> {
        let store = if accept_loss { SledStore::open_accepting_loss(path) } else { SledStore::open(path) };
        Ok(Self { path: path.to_owned(), reserve, inner: RwLock::new(Some(store?)) })
    }

    fn inner(&self) -> RwLockReadGuard<'_, Option<SledStore>> {
        // It is only ever replaced as a whole, so a panic leaves it valid.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T, E: From<StoreError>>(&self, ask: impl FnOnce(&SledStore) -> Result<T, E>) -> Result<T, E> {
        let closed = || StoreError::Failed("it failed and could not be reopened yet".into()).into();
        self.inner().as_ref().ok_or_else(closed).and_then(ask)
    }
}

/// Each call holds the store only for one part, so it can be reopened in between.
impl Moments for ReopeningStore {
    fn begin_moment(&self, most: usize) -> Result<(Arc<()>, Mark), StreamError> {
        self.with(|store| store.begin_moment(most))
    }

    fn next_of_moment(&self, name: &Arc<()>) -> Result<Vec<Whole>, StreamError> {
        self.with(|store| store.next_of_moment(name))
    }

    fn judge_moment(&self, mark: &Mark, found: &Tally) -> Result<(), StreamError> {
        self.with(|store| store.judge_moment(mark, found))
    }

    fn end_moment(&self, name: &Arc<()>) {
        // A store that was closed keeps nothing.
        if let Some(store) = &*self.inner() {
            store.end_moment(name);
        }
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
        live_backup::write(self, out, progress)
    }

    fn reopen(&self) -> Result<bool, StoreError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.as_ref().is_some_and(|store| !store.has_failed()) {
            return Ok(false);
        }
        if inner.as_ref().is_some_and(SledStore::sync_failed) {
            let problem = "a sync failed, so its disk may lack what the system takes for written; check the disk, then restart the coordinator";
            return Err(StoreError::Failed(problem.into()));
        }
        // First, to release its lock.
        *inner = None;
        // Never creates a store: if the folder is empty, its disk is gone.
        *inner = Some(SledStore::open_existing(&self.path)?);
        Ok(true)
    }

    #[cfg(unix)]
    fn room(&self) -> Option<Room> {
        let disk = rustix::fs::statvfs(&self.path).ok().filter(|_| self.reserve > 0)?;
        Some(Room { left: disk.f_bavail.saturating_mul(disk.f_frsize), reserve: self.reserve })
    }
}
