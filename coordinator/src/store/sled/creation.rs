//! Creates a new, empty database so that neither a killed process nor a power cut leaves something that cannot be opened:
//! the database is made in a folder of its own inside the store's, and its files, the mark among them, are moved once all
//! of them are on the disk, the database file last. So a store that has a database file is complete.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::database::{self, VERSION_KEY};
use super::errors::failed;
use super::files::{database_file, sync_folder};
use super::mark::{self, Mark, MarkFile};
use crate::ports::StoreError;
use crate::store::records::FORMAT_VERSION;

/// Where a database is made. While this exists and the database file does not, everything else in the store's folder
/// belongs to it.
const CREATING: &str = ".creating";
const LOCK: &str = "lock";

/// Whether the creation of a store in this folder was interrupted.
pub(super) fn is_unfinished(path: &Path) -> bool {
    !database_file(path).exists() && path.join(CREATING).is_dir()
}

/// Creates an empty database in a folder that has none.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let named = |e: io::Error| failed(format!("{}: {e}", path.display()));
    let creating = path.join(CREATING);
    fs::create_dir_all(&creating).map_err(named)?;
    let lock = File::create(creating.join(LOCK)).map_err(named)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.display().to_string() }),
        // The file system has no locks, and sled needs one too.
        Err(TryLockError::Error(e)) => return Err(named(e)),
    }
    // Another process may have finished between the caller's look and the lock.
    if !database_file(path).exists() {
        clear(path, &creating).map_err(named)?;
        let making = creating.join("database");
        let db = database::open(&making)?;
        db.insert(VERSION_KEY, &FORMAT_VERSION.to_be_bytes()).map_err(failed)?;
        db.insert(mark::KEY, &Mark::default().encode()[..]).map_err(failed)?;
        db.flush().map_err(failed)?;
        drop(db);
        MarkFile::create(&making, Mark::default()).map_err(named)?;
        install(path, &making).map_err(named)?;
    }
    clear_away(path).map_err(named)
}

/// Removes the folder in which the database was made, once there is a database.
pub(super) fn clear_away(path: &Path) -> io::Result<()> {
    remove(&path.join(CREATING))
}

/// Removes what an interrupted creation has left.
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
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).or_else(unless_missing),
        Ok(_) => fs::remove_file(path),
        Err(e) => unless_missing(e),
    }
}

fn unless_missing(error: io::Error) -> io::Result<()> {
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
    // The folder's own name too: the folders above it may have been created with it.
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
