//! The files in a store's folder: their names, and how they become durable.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The file that holds sled's log.
pub(super) fn database_file(store: &Path) -> PathBuf {
    store.join("db")
}

/// Where a compaction keeps the old store until the new one has its name.
pub fn set_aside(store: &Path) -> PathBuf {
    // As components: with a slash at the end the new name would be inside the folder.
    let mut name = store.components().collect::<PathBuf>().into_os_string();
    name.push(".old");
    name.into()
}

/// Removes snapshots that a process was writing when it died: sled would take one for its newest, and refuse the database.
pub(super) fn remove_unfinished_snapshots(store: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(store)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes durable what sled changes when it opens a database: which snapshots exist, and which were removed.
pub(super) fn sync_names(store: &Path) -> io::Result<()> {
    sync_folder(&store.join("blobs"))?;
    sync_folder(store)
}

/// Makes the names in a folder durable. On a system that cannot open or sync a folder, they are durable with the files.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(e)
            if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported | ErrorKind::InvalidInput) =>
        {
            Ok(())
        }
        other => other,
    }
}
