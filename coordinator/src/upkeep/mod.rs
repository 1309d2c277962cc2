//! What is done to a store while no coordinator runs on it: check, back up, restore, compact.
//!
//! sled's lock keeps a running coordinator and these tools apart. Absent: terminals and arguments (`cli`), and how
//! records are read and written (`store`).

mod check;
mod compact;
mod copies;
mod files;

use std::io;
use std::path::{Path, PathBuf};

pub use crate::ports::Progress;
pub use crate::store::Damage;
pub use crate::store::backup::Summary;
pub use check::{Checked, SearchNote, check};
pub use compact::{Compacted, compact};
pub use copies::{Unfinished, backup, restore};
#[cfg(feature = "cli")]
pub(crate) use files::size as folder_size;

use crate::ports::StoreError;
use crate::store::backup::StreamError;
use crate::store::{LOSS_HINT, RESTORE_HINT};

/// Why a tool does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Files cannot be read or written.
    #[error("cannot {doing} '{}': {source}", path.display())]
    File {
        /// A verb.
        doing: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder was meant.
    #[error("there is no folder '{}'", .0.display())]
    NoFolder(PathBuf),
    /// A backup is not overwritten.
    #[error("'{}' exists already", .0.display())]
    Exists(PathBuf),
    /// A store is not restored over anything.
    #[error("'{}' is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// Something is where a compaction keeps the old store.
    #[error("'{}' is in the way", .0.display())]
    Leftover(PathBuf),
    /// The file is no backup, or one that has changed.
    #[error("backup '{}' cannot be used: {problem}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: StreamError,
    },
    /// The new store does not hold what the old one does.
    #[error("the copy in '{}' differs from what was copied", .0.display())]
    Differs(PathBuf),
}

impl UpkeepError {
    /// The way out, if there is an obvious one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(StoreError::Locked { .. }) => Some(
                "stop the coordinator that runs on it first, or take a backup while it runs with `evocache backup`"
                    .into(),
            ),
            Self::Store(StoreError::Foreign { .. }) => Some("name the folder of a store with --data".into()),
            Self::Store(StoreError::Version { found, supported, .. }) if found > supported => {
                Some("it was written by a newer evocache: use that one".into())
            }
            Self::Store(StoreError::Version { .. } | StoreError::Corrupt { .. } | StoreError::Torn { .. }) => {
                Some(RESTORE_HINT.into())
            }
            Self::Store(StoreError::Lost { .. } | StoreError::Unmarked { .. }) => Some(LOSS_HINT.into()),
            Self::Store(StoreError::SetAside { path, aside }) => Some(format!("rename {aside} to {path}")),
            Self::Store(StoreError::Failed(_)) | Self::File { .. } | Self::Differs(_) => None,
            Self::NoFolder(_) => Some("make it first, or name a file".into()),
            Self::Exists(_) => Some("nothing is ever overwritten by a backup: name another file, or a folder".into()),
            Self::NotEmpty(_) => Some("name a folder with --data that is empty or not there yet".into()),
            Self::Leftover(_) => Some(
                "a compaction that was cut off after it had succeeded leaves it: check the store, then remove it"
                    .into(),
            ),
            Self::Backup { problem: StreamError::Version { .. }, .. } => {
                Some("restore it with the evocache that wrote it".into())
            }
            Self::Backup {
                problem: StreamError::Io(_) | StreamError::Store(_) | StreamError::Busy | StreamError::Overtaken(_),
                ..
            } => None,
            Self::Backup { problem: StreamError::Foreign | StreamError::Damaged(_), .. } => {
                Some("take another backup: nothing was written".into())
            }
        }
    }
}

/// For `map_err`: what was being done with which file.
fn file(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> UpkeepError {
    move |source| UpkeepError::File { doing, path: path.to_owned(), source }
}
