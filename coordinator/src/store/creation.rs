//! Makes a new, empty database so that a process that dies or a power cut in the middle leaves nothing that cannot be
//! opened: it is made in a folder of its own inside the store's, and its files, the mark among them, are moved, the
//! database file last, when all of them are on disk. So a store with a database file is a whole one.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::mark::{Mark, MarkFile};
use super::opening::{database_file, open_database};
use super::sled_store::{FORMAT_VERSION, MARK_KEY, VERSION_KEY, failed};
use crate::ports::StoreError;

/// Where a database is made. While it is there and the database file is not, what else is there belongs to it.
const CREATING: &str = ".creating";
const LOCK: &str = "lock";

/// Whether the making of a store in this folder was cut off.
pub(super) fn is_unfinished(path: &Path) -> bool {
    !database_file(path).exists() && path.join(CREATING).is_dir()
}

/// Makes an empty database in a folder that has none.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let told = |e: io::Error| failed(format!("{}: {e}", path.display()));
    let creating = path.join(CREATING);
    fs::create_dir_all(&creating).map_err(told)?;
    let lock = File::create(creating.join(LOCK)).map_err(told)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.display().to_string() }),
        // A file system without locks: sled will say so too.
        Err(TryLockError::Error(e)) => return Err(told(e)),
    }
    // Another process may have finished between the look and the lock.
    if !database_file(path).exists() {
        clear(path, &creating).map_err(told)?;
        let making = creating.join("database");
        let db = open_database(&making)?;
        db.insert(VERSION_KEY, &FORMAT_VERSION.to_be_bytes()).map_err(failed)?;
        db.insert(MARK_KEY, &Mark::default().encode()[..]).map_err(failed)?;
        db.flush().map_err(failed)?;
        drop(db);
        MarkFile::create(&making, Mark::default()).map_err(told)?;
        install(path, &making).map_err(told)?;
    }
    clear_away(path).map_err(told)
}

/// Removes the folder in which the database was made, once there is a database.
pub(super) fn clear_away(path: &Path) -> io::Result<()> {
    remove(&path.join(CREATING))
}

/// Removes what a creation that was cut off has left.
fn clear(path: &Path, creating: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        if entry != creating {
            remove(&entry)?;
        }
    }
    remove(&creating.join("database"))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).or_else(unless_gone),
        Ok(_) => fs::remove_file(path),
        Err(e) => unless_gone(e),
    }
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Moves a finished database into its place.
fn install(path: &Path, making: &Path) -> io::Result<()> {
    let mut names = vec![];
    for entry in fs::read_dir(making)? {
        let entry = entry?;
        File::open(entry.path())?.sync_all()?;
        names.push(entry.file_name());
    }
    // The folder's own name, which may have been made with all folders above it.
    for above in path.canonicalize()?.ancestors() {
        sync_folder(above)?;
    }
    let database = database_file(making);
    for name in names.iter().map(|name| making.join(name)).filter(|name| *name != database) {
        if let Some(last) = name.file_name() {
            fs::rename(&name, path.join(last))?;
        }
    }
    sync_folder(path)?;
    fs::rename(&database, database_file(path))?;
    sync_folder(path)
}

/// Makes the names in a folder durable. Where a folder cannot be opened or synced, its names come with the files.
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
