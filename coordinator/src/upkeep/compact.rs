//! Rewrites a store, because sled appends and frees little of what was deleted.
//!
//! The new store is written beside the old one and read back. Then two renames swap them. Between the two, the store is at
//! `.old`: a coordinator that starts then, or after a crash at that moment, refuses and says so.

use std::path::{Path, PathBuf};

use super::copies::make;
use super::error::{UpkeepError, file};
use super::files;
use crate::ports::Progress;
use crate::store::backup::{self, StreamError};
use crate::store::{SledStore, set_aside};

/// What a compaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// Number of records.
    pub records: u64,
    /// Bytes on disk before.
    pub before: u64,
    /// Bytes on disk after.
    pub after: u64,
}

/// Compacts the store in this folder.
pub fn compact(data: &Path, progress: &mut Progress<'_>) -> Result<Compacted, UpkeepError> {
    // The renames must apply to the folder itself, not to a link to it or to `.`.
    let data: PathBuf = match data.canonicalize() {
        Ok(path) => path,
        // Opening it gives the error.
        Err(_) => data.to_owned(),
    };
    let store = SledStore::open_existing(&data)?;
    let (fresh, old) = (files::beside(&data, ".compacting"), set_aside(&data));
    if !files::is_free(&old)? {
        return Err(UpkeepError::Leftover(old));
    }
    files::clear(&fresh)?;
    let before = files::size(&data).map_err(file("read", &data))?;
    let refused = |problem| match problem {
        StreamError::Store(e) => UpkeepError::Store(e),
        problem => UpkeepError::Backup { path: data.clone(), problem },
    };
    let made = make(&fresh, |new| {
        backup::copy(&store, new, progress).map_err(refused)?;
        backup::digest(&store, &mut |_, _| {}).map_err(refused)
    });
    let summary = made.inspect_err(|_| {
        // The old store is unchanged; the first error is the one that matters.
        let _ = std::fs::remove_dir_all(&fresh);
    })?;
    // Closed before it is renamed, because sled writes to the path that it opened.
    drop(store);
    std::fs::rename(&data, &old).map_err(file("rename", &data))?;
    if let Err(e) = std::fs::rename(&fresh, &data) {
        // Back to its old name; if that fails too, opening the store says where it is.
        let _ = std::fs::rename(&old, &data);
        return Err(file("rename", &fresh)(e));
    }
    files::sync_parent(&data)?;
    let after = files::size(&data).map_err(file("read", &data))?;
    files::clear(&old)?;
    Ok(Compacted { records: summary.records, before, after })
}
