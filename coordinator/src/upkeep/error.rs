//! Why a tool fails, and the way out.

use std::io;
use std::path::{Path, PathBuf};

use crate::ports::StoreError;
use crate::store::backup::StreamError;
use crate::store::{LOSS_HINT, RESTORE_HINT, format_hint};

/// Why a tool fails.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or folder cannot be read or written.
    #[error("cannot {doing} '{}': {source}", path.display())]
    File {
        /// What was attempted: a verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path ends in a slash and there is no such folder.
    #[error("there is no folder '{}'", .0.display())]
    NoFolder(PathBuf),
    /// A backup never overwrites anything.
    #[error("'{}' exists already", .0.display())]
    Exists(PathBuf),
    /// A store is restored into an empty folder only.
    #[error("'{}' is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// The folder in which a compaction keeps the old store exists already.
    #[error("'{}' is in the way", .0.display())]
    Leftover(PathBuf),
    /// The file is not a backup of this format, or was changed since it was written.
    #[error("backup '{}' cannot be used: {problem}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: StreamError,
    },
    /// A copy that was read back does not have the records of the original.
    #[error("the copy in '{}' differs from what was copied", .0.display())]
    Differs(PathBuf),
}

impl UpkeepError {
    /// The way out, if there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(StoreError::Locked { .. }) => Some(
                "stop the coordinator that uses it, or back up the running coordinator with `evocache backup`".into(),
            ),
            Self::Store(StoreError::Foreign { .. }) => Some("name the folder of a store with --data".into()),
            Self::Store(StoreError::Version { found, supported, .. }) => Some(format_hint(*found, *supported).into()),
            Self::Store(StoreError::Corrupt { .. } | StoreError::Torn { .. }) => Some(RESTORE_HINT.into()),
            Self::Store(StoreError::Lost { .. } | StoreError::Unmarked { .. }) => Some(LOSS_HINT.into()),
            Self::Store(StoreError::SetAside { path, aside }) => Some(format!("rename {aside} to {path}")),
            Self::Store(StoreError::Failed(_)) | Self::File { .. } | Self::Differs(_) => None,
            Self::NoFolder(_) => Some("create it first, or name a file".into()),
            Self::Exists(_) => Some("name another file, or a folder: a backup overwrites nothing".into()),
            Self::NotEmpty(_) => Some("name a folder with --data that is empty or does not exist".into()),
            Self::Leftover(_) => Some(
                "a compaction that was interrupted after it had succeeded leaves it: check the store, then remove it"
                    .into(),
            ),
            Self::Backup { problem: StreamError::Version { found, supported, .. }, .. } => {
                Some(format_hint(*found, *supported).into())
            }
            Self::Backup {
                problem: StreamError::Io(_) | StreamError::Store(_) | StreamError::Busy | StreamError::Overtaken(_),
                ..
            } => None,
            Self::Backup { problem: StreamError::Foreign | StreamError::Damaged(_), .. } => {
                Some("use another backup; nothing was written".into())
            }
        }
    }
}

/// For `map_err`: an error that says what was attempted with which file.
pub(super) fn file(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> UpkeepError {
    move |source| UpkeepError::File { doing, path: path.to_owned(), source }
}
