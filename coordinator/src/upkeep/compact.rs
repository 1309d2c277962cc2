//! Rewrites a store: sled appends, and gives little back of what was deleted.
//!
//! The new store is made beside the old one and read back. Then two renames swap them; between the two the store is
//! at `.old`, and a coordinator that is started in that moment, or after a crash in it, refuses and says so.

use std::path::{Path, PathBuf};

use super::copies::make;
use super::{Progress, UpkeepError, file, files};
use crate::store::backup::{self, StreamError};
use crate::store::{SledStore, set_aside};

/// What a compaction has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// Records.
    pub records: u64,
    /// Bytes on disk before.
    pub before: u64,
    /// And after.
    pub after: u64,
}

/// Compacts the store in this folder.
pub fn compact(data: &Path, progress: &mut Progress<'_>) -> Result<Compacted, UpkeepError> {
    // Renames are of the folder itself, not of a link to it or of `.`.
    let data: PathBuf = match data.canonicalize() {
        Ok(path) => path,
        // Opening it says what is wrong with it.
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
        // The old store is untouched; the first error is the one to tell.
        let _ = std::fs::remove_dir_all(&fresh);
    })?;
    // Closed before it moves: sled writes to where it was opened.
    drop(store);
    std::fs::rename(&data, &old).map_err(file("rename", &data))?;
    if let Err(e) = std::fs::rename(&fresh, &data) {
        // Back to where it was; if that fails too, opening the store says where it is.
        let _ = std::fs::rename(&old, &data);
        return Err(file("rename", &fresh)(e));
    }
    files::sync_parent(&data)?;
    let after = files::size(&data).map_err(file("read", &data))?;
    files::clear(&old)?;
    Ok(Compacted { records: summary.records, before, after })
}
