//! Files and folders that exist completely or not at all, even after a power cut.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{UpkeepError, file};

/// The path with a suffix on its last component.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    // As components: with a slash at the end the new name would be inside the folder.
    let mut name = path.components().collect::<PathBuf>().into_os_string();
    name.push(suffix);
    name.into()
}

/// Makes renames in this path's parent folder durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), UpkeepError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync(parent)
}

/// Makes a folder's entries, or a file's content, durable.
pub(super) fn sync(path: &Path) -> Result<(), UpkeepError> {
    // Windows cannot open folders; there a rename is durable by itself.
    if cfg!(windows) && path.is_dir() {
        return Ok(());
    }
    File::open(path).and_then(|f| f.sync_all()).map_err(file("flush", path))
}

/// Makes a folder and everything in it durable.
pub(super) fn sync_tree(folder: &Path) -> Result<(), UpkeepError> {
    for entry in std::fs::read_dir(folder).map_err(file("read", folder))? {
        let path = entry.map_err(file("read", folder))?.path();
        if path.is_dir() { sync_tree(&path)? } else { sync(&path)? }
    }
    sync(folder)
}

/// Bytes of all files in a folder.
pub(crate) fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { size(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}

/// Whether nothing exists at this path, or only an empty folder.
pub(super) fn is_free(folder: &Path) -> Result<bool, UpkeepError> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(file("read", folder)(e)),
    }
}

/// Removes a folder that an earlier run left, if there is one.
pub(super) fn clear(folder: &Path) -> Result<(), UpkeepError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file("remove", folder)(e)),
        _ => Ok(()),
    }
}
