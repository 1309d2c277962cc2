//! What the engine needs from outside, as traits, and the facts that it stores.
//!
//! Has no implementations: `store` has the stores, `server` the clock and the source of identifiers.

mod fact;
mod loss;

pub use evocache_proto::domain::SearchState;
pub use fact::{Fact, ModelFacts, Registration, RequestRecord};
pub use loss::{Holding, Loss};

use evocache_proto::domain::{CandidateId, SearchId};

use evocache_domain::time::Timestamp;

/// Why the store could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the store at {path} is in use by another process")]
    Locked {
        /// The store's folder.
        path: String,
    },
    /// The folder holds something that is not a store.
    #[error("{path} is not an evocache store: {found}")]
    Foreign {
        /// The store's folder.
        path: String,
        /// What the folder holds instead.
        found: String,
    },
    /// The store was written in another storage format.
    #[error("the store at {path} has format version {found}, this program reads version {supported}")]
    Version {
        /// The store's folder.
        path: String,
        /// The store's format version.
        found: u64,
        /// The version that this program reads.
        supported: u64,
    },
    /// A record that cannot be read back.
    #[error("record {key} in the store cannot be read: {problem}")]
    Corrupt {
        /// The record's key in readable form.
        key: String,
        /// What is wrong with the record.
        problem: String,
    },
    /// The database itself cannot be read: a file was truncated or overwritten.
    #[error("the database in {path} is damaged: {problem}")]
    Torn {
        /// The store's folder.
        path: String,
        /// What the database says.
        problem: String,
    },
    /// The store lacks records that were acknowledged, or has others.
    #[error("the store at {path} has lost acknowledged records: {loss}")]
    Lost {
        /// The store's folder.
        path: String,
        /// What is missing.
        loss: Box<Loss>,
    },
    /// The file that tells what was acknowledged is missing or unreadable.
    #[error("it is not known whether the store at {path} has all acknowledged records: {problem}")]
    Unmarked {
        /// The store's folder.
        path: String,
        /// What is wrong with that file.
        problem: String,
    },
    /// A compaction was interrupted between its two renames.
    #[error("{path} does not exist, but {aside} does: an interrupted compaction left the store there")]
    SetAside {
        /// The store's folder.
        path: String,
        /// Where the store is now.
        aside: String,
    },
    /// The disk or the database reported an error.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Why a store in use could not be backed up.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another backup is running.
    #[error("another backup of the store is running: wait for its end")]
    Busy,
    /// Too much changed: the old values of records that were not read yet are kept only up to this many bytes.
    #[error("more than {} MiB changed while the store was read: try again when there is less load", .0 >> 20)]
    Overtaken(usize),
    /// The caller does not read the backup.
    #[error("the caller does not read the backup: {0}")]
    Untaken(std::io::Error),
}

/// Called now and then with the number of records done and the number of all.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// The room on a store's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be written.
    pub left: u64,
    /// Bytes that should stay free.
    pub reserve: u64,
}

impl Room {
    /// Whether nothing new should be begun; what was begun may be finished.
    pub fn is_scarce(&self) -> bool {
        self.left < self.reserve
    }

    /// Whether nothing should be written: databases behave unpredictably on a full disk.
    pub fn is_used_up(&self) -> bool {
        self.left < self.reserve / 4
    }
}

/// How many records of a deleted search are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// None.
    All,
    /// Some: clear again.
    Some,
    /// All: a backup is reading the store, and records stay until it is done.
    Later,
}

/// Where facts outlive the process.
///
/// A commit is atomic: after a crash all of its facts are there or none. It is durable once [`sync`](Self::sync)
/// has returned after it; before, it may be in memory only.
pub trait Store: Send + Sync + 'static {
    /// Passes on the facts that make up the present state, in an order in which they can be applied.
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError>;
    /// The same facts as a list.
    fn load(&self) -> Result<Vec<Fact>, StoreError> {
        let mut facts = vec![];
        self.replay(&mut |fact| facts.push(fact))?;
        Ok(facts)
    }
    /// Writes the facts of one decision: all or none.
    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError>;
    /// Returns when everything committed so far survives a power cut.
    fn sync(&self) -> Result<(), StoreError>;
    /// Removes a bounded number of records of a deleted search.
    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError>;
    /// The thumbnails that came with an evaluation.
    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Writes a backup of what the store holds now to `out`. Commits go on meanwhile; only the caller waits for `out`.
    fn back_up(&self, _out: &mut dyn std::io::Write, _progress: &mut Progress<'_>) -> Result<(), BackupError> {
        Err(StoreError::Failed("it has no backups".into()).into())
    }
    /// Opens the store again if it has failed, as a restart would; returns whether it had. Unsynced commits may be lost.
    fn reopen(&self) -> Result<bool, StoreError> {
        Ok(false)
    }
    /// The room on the disk; `None` if unknown or irrelevant.
    fn room(&self) -> Option<Room> {
        None
    }
}

/// The time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch; never goes back while the process lives.
    fn now(&self) -> Timestamp;
}

/// Makes unique identifiers.
pub trait IdSource: Send + Sync + 'static {
    /// 1 to 50 of `a-z0-9-`, not starting with `-`.
    fn unique(&self) -> String;
}
