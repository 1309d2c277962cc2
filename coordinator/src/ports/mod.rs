//! What the engine needs of the world, as traits, and the facts that it stores.
//!
//! Absent on purpose: any implementation. `store` has the stores, `server` the clock and the source of identifiers.

mod fact;
mod loss;

pub use evocache_proto::domain::SearchState as Phase;
pub use fact::{Fact, ModelFacts, Registration, RequestRecord};
pub use loss::{Holding, Loss};

use evocache_proto::domain::{CandidateId, SearchId};

use evocache_domain::time::Timestamp;

/// Why the store could not do something. What was not committed is not there; what was is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the store at {path} is in use by another process")]
    Locked {
        /// The store's folder.
        path: String,
    },
    /// The folder holds something else.
    #[error("{path} is not an evocache store: {found}")]
    Foreign {
        /// The store's folder.
        path: String,
        /// What is there instead.
        found: String,
    },
    /// Written by a program with another storage format.
    #[error("the store at {path} has format version {found}, this program reads version {supported}")]
    Version {
        /// The store's folder.
        path: String,
        /// Its version.
        found: u64,
        /// Ours.
        supported: u64,
    },
    /// A record that cannot be read back.
    #[error("record {key} in the store cannot be read: {problem}")]
    Corrupt {
        /// The record's key, readable.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The database itself cannot be read: a file is cut off or was overwritten.
    #[error("the database in {path} is torn: {problem}")]
    Torn {
        /// The store's folder.
        path: String,
        /// What the database says.
        problem: String,
    },
    /// It has less than what was acknowledged, or something else.
    #[error("the store at {path} has lost what was acknowledged: {loss}")]
    Lost {
        /// The store's folder.
        path: String,
        /// How much.
        loss: Box<Loss>,
    },
    /// What was acknowledged cannot be known.
    #[error("whether the store at {path} has all that was acknowledged is not known: {problem}")]
    Unmarked {
        /// The store's folder.
        path: String,
        /// What is wrong with the file that says it.
        problem: String,
    },
    /// A compaction was cut off between its two renames.
    #[error("{path} is not there, and {aside} is: the store was set aside by a compaction that was cut off")]
    SetAside {
        /// The store's folder.
        path: String,
        /// Where the store is.
        aside: String,
    },
    /// The disk or the database refused.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Why a store that goes on cannot be backed up.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One at a time.
    #[error("a backup of the store is under way already: wait for its end")]
    Busy,
    /// What is there before a write is kept until it is read, up to so many bytes.
    #[error("more than {} MiB were changed while the store was read: try again when less is going on", .0 >> 20)]
    Overtaken(usize),
    /// Whoever asked for it does not take it.
    #[error("nobody takes the backup: {0}")]
    Untaken(std::io::Error),
}

/// Told now and then: records done, of so many.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// How much room a store has on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that can still be written.
    pub left: u64,
    /// Bytes that are to stay free.
    pub reserve: u64,
}

impl Room {
    /// Nothing new is begun; what is under way may be finished.
    pub fn is_scarce(&self) -> bool {
        self.left < self.reserve
    }

    /// Nothing at all is written: what a database does with a full disk is hard to say.
    pub fn is_used_up(&self) -> bool {
        self.left < self.reserve / 4
    }
}

/// What is left of a deleted search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// Nothing.
    All,
    /// More records.
    Some,
    /// All that there was: somebody reads the store as it is, and records are not to be taken from under them.
    Later,
}

/// Where facts outlive the process.
///
/// A commit is atomic: after a crash all of its facts are there or none. It is durable once [`sync`](Self::sync)
/// has returned after it; before, it may be in memory only.
pub trait Store: Send + Sync + 'static {
    /// Tells all facts that describe the present, in an order that [`Fact`]s can be applied in.
    fn replay(&self, each: &mut dyn FnMut(Fact)) -> Result<(), StoreError>;
    /// All of them at once.
    fn load(&self) -> Result<Vec<Fact>, StoreError> {
        let mut facts = vec![];
        self.replay(&mut |fact| facts.push(fact))?;
        Ok(facts)
    }
    /// Writes the facts of one decision, all or none.
    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError>;
    /// Returns when everything committed so far survives a power cut.
    fn sync(&self) -> Result<(), StoreError>;
    /// Removes some of the records of a deleted search: no more than is done in an instant, however many there are.
    fn clear(&self, search: &SearchId) -> Result<Cleared, StoreError>;
    /// The pictures that came with an evaluation.
    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Writes a backup of what it holds at this moment to `out`, while others write; nobody waits for `out` but the caller.
    fn back_up(&self, _out: &mut dyn std::io::Write, _progress: &mut Progress<'_>) -> Result<(), BackupError> {
        Err(StoreError::Failed("it has no backups".into()).into())
    }
    /// Opens anew what has failed, as a restart would; says whether there was a need to. What was not synced may be gone.
    fn reopen(&self) -> Result<bool, StoreError> {
        Ok(false)
    }
    /// How much room there is; `None` where that is unknown or does not matter.
    fn room(&self) -> Option<Room> {
        None
    }
}

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch; never goes back while the process lives.
    fn now(&self) -> Timestamp;
}

/// Makes identifiers that nobody else makes.
pub trait IdSource: Send + Sync + 'static {
    /// 1 to 50 of `a-z0-9-`, not starting with `-`.
    fn unique(&self) -> String;
}
