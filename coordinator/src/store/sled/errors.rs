//! sled's errors as the store's.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;

use crate::ports::StoreError;

pub(super) fn failed(e: impl Display) -> StoreError {
    StoreError::Failed(e.to_string())
}

pub(super) fn torn(path: &Path, problem: impl Display) -> StoreError {
    StoreError::Torn { path: path.display().to_string(), problem: problem.to_string() }
}

/// An error of an open database: of what is in its files, or of the disk. [`located`] adds the path.
pub(super) fn of_sled(e: sled::Error) -> StoreError {
    let torn = || torn(Path::new(""), &e);
    match &e {
        sled::Error::Corruption { .. } | sled::Error::Unsupported(_) | sled::Error::ReportableBug(_) => torn(),
        sled::Error::Io(io) if matches!(io.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => torn(),
        sled::Error::Io(_) | sled::Error::CollectionNotFound(_) => failed(e),
    }
}

/// Adds the store's path to an error that has none.
pub(super) fn located(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Torn { path: unknown, problem } if unknown.is_empty() => torn(path, problem),
        error => error,
    }
}
