//! Opens a store, and refuses one that is not what it should be: another program's, another format's, in use, torn, or
//! short of what was acknowledged.
//!
//! A store that is short of that is opened for two purposes only: to be looked at, and to be taken as it is by somebody
//! who was told what is lost.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::SledStore;
use super::creation::{self, sync_folder};
use super::mark::{self, Mark, MarkFile};
use super::sled_store::{FORMAT_VERSION, MARK_KEY, VERSION_KEY, database, failed};
use crate::ports::{Store, StoreError};

/// How often a lock is looked at again, and how long after.
const LOOKS: u32 = 40;
const LOOK: std::time::Duration = std::time::Duration::from_millis(50);

/// Bytes of pages that sled keeps in memory. All that is asked for often is in the engine's state.
const CACHE: u64 = 8 * 1024 * 1024;

impl SledStore {
    /// Opens the store in this folder, or makes one if there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        refuse_foreign(path)?;
        if !database_file(path).exists() {
            creation::create(path)?;
        }
        match start(path)? {
            (store, None) => Ok(store),
            (_, Some(refusal)) => Err(refusal),
        }
    }

    /// Opens the store in this folder; makes none.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        refuse_missing(path)?;
        Self::open(path)
    }

    /// Opens the store in this folder even if it is short of what was acknowledged, to look at it; says why
    /// [`open`](Self::open) would refuse it.
    pub fn open_damaged(path: &Path) -> Result<(Self, Option<StoreError>), StoreError> {
        refuse_missing(path)?;
        start(path)
    }

    /// Opens the store in this folder, or makes one if there is none. One that is short of what was acknowledged is taken
    /// as it is, from now on; the log says what it lacks, before that is forgotten.
    pub fn open_accepting_loss(path: &Path) -> Result<Self, StoreError> {
        if !database_file(path).exists() {
            return Self::open(path);
        }
        let (store, refusal) = Self::open_damaged(path)?;
        // First of all: what cannot be read is nothing to go on with.
        let found = store.replay_any(&mut |_| {})?;
        if let Some(loss) = refusal.or(store.judge(&found).err()) {
            if store.tally()? != found {
                return Err(torn(path, "it holds records of searches that it does not hold"));
            }
            tracing::warn!("accepted: {loss}; going on with {}", found.holding);
            store.adopt(found)?;
        }
        Ok(store)
    }
}

/// Opens a database that is there. What is found short of what was acknowledged is left as it is.
fn start(path: &Path) -> Result<(SledStore, Option<StoreError>), StoreError> {
    let shown = || path.display().to_string();
    creation::clear_away(path).map_err(failed)?;
    remove_unfinished_snapshots(path).map_err(failed)?;
    let db = open_database(path)?;
    let read = |key| db.get(key).map_err(|e| open_error(path, &e));
    let marked = MarkFile::open(path);
    match read(VERSION_KEY)?.map(|bytes| <[u8; 8]>::try_from(&*bytes).map_or(0, u64::from_be_bytes)) {
        Some(FORMAT_VERSION) => {}
        Some(found) => return Err(StoreError::Version { path: shown(), found, supported: FORMAT_VERSION }),
        // With a mark beside it, it is one of ours that has lost everything.
        None if marked.is_ok() => {}
        None => {
            return Err(StoreError::Foreign { path: shown(), found: "a sled database of another program".into() });
        }
    }
    let stored = read(MARK_KEY)?.and_then(|bytes| Mark::decode(&bytes)).unwrap_or_default();
    let file = File::open(database_file(path)).map_err(failed)?;
    sync_names(path).map_err(failed)?;
    let (acknowledged, unmarked) = match marked {
        Ok(file) => (Some(file), None),
        Err(e) => (None, Some(StoreError::Unmarked { path: shown(), problem: problem(path, &e) })),
    };
    let is_short = acknowledged.as_ref().map(MarkFile::newest).is_some_and(|acknowledged| {
        acknowledged.sequence > stored.sequence || acknowledged.sequence == stored.sequence && acknowledged != stored
    });
    let store = SledStore::new(path, db, file, stored, acknowledged);
    let refusal = match unmarked {
        None if is_short => store.judge(&store.tally()?).err(),
        unmarked => unmarked,
    };
    if refusal.is_none() {
        // What a crash left unacknowledged is acknowledged from now on.
        store.sync()?;
    }
    Ok((store, refusal))
}

/// Why the mark cannot be read.
fn problem(store: &Path, error: &io::Error) -> String {
    let file = mark::path(store);
    match error.kind() {
        io::ErrorKind::NotFound => format!("{} is missing", file.display()),
        _ => format!("{}: {error}", file.display()),
    }
}

/// A snapshot that was being written when the process died: sled would take it for the newest, and the database for torn.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes durable what sled changes when it opens a database: which snapshot there is, and what is no longer there.
fn sync_names(path: &Path) -> io::Result<()> {
    sync_folder(&path.join("blobs"))?;
    sync_folder(path)
}

/// sled answers most damage with an error and some with a panic: both are told as what they are. It mends the end of its
/// log before it reads it, and what stopped it once may then be gone: so it has a second try, for whoever opens it. What
/// it then has is held against the mark, as always.
///
/// A database that this process has just closed is locked for a moment longer, while sled's threads end: a lock is
/// looked at again before it is believed.
pub(super) fn open_database(path: &Path) -> Result<sled::Db, StoreError> {
    let (mut patience, mut tries) = (LOOKS, 2);
    loop {
        let opened = std::panic::catch_unwind(|| sled::Config::new().path(path).cache_capacity(CACHE).open());
        let opened = opened.map_err(|_| torn(path, "the database gave up on it"));
        match opened.and_then(|opened| opened.map_err(|e| open_error(path, &e))) {
            Err(StoreError::Locked { .. }) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(LOOK);
            }
            Err(StoreError::Torn { .. }) if tries > 1 => {
                tries -= 1;
                remove_unfinished_snapshots(path).map_err(failed)?;
            }
            result => return result,
        }
    }
}

fn torn(path: &Path, problem: impl std::fmt::Display) -> StoreError {
    StoreError::Torn { path: path.display().to_string(), problem: problem.to_string() }
}

/// Where a compaction keeps the old store until the new one is in its place.
pub fn set_aside(path: &Path) -> PathBuf {
    // As components: a slash at the end would put the new name inside.
    let mut name = path.components().collect::<PathBuf>().into_os_string();
    name.push(".old");
    name.into()
}

pub(super) fn database_file(path: &Path) -> PathBuf {
    path.join("db")
}

fn refuse_missing(path: &Path) -> Result<(), StoreError> {
    refuse_foreign(path)?;
    if database_file(path).exists() {
        return Ok(());
    }
    Err(StoreError::Foreign { path: path.display().to_string(), found: "there is no database".into() })
}

/// A folder with files but no database is somebody else's: sled would make a database in the middle of them.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let foreign = |found: String| StoreError::Foreign { path: path.display().to_string(), found };
    match std::fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            Some(Ok(_)) if database_file(path).exists() || creation::is_unfinished(path) => Ok(()),
            Some(Ok(_)) if MarkFile::open(path).is_ok() => Err(torn(path, "its file 'db' is missing")),
            Some(Ok(first)) => {
                Err(foreign(format!("it holds '{}' and no database", first.file_name().to_string_lossy())))
            }
            _ => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Err(foreign("a file, not a folder".into())),
        // A new store in this place would hide the old one.
        Err(e) if e.kind() == io::ErrorKind::NotFound && database_file(&set_aside(path)).exists() => {
            let aside = set_aside(path).display().to_string();
            Err(StoreError::SetAside { path: path.display().to_string(), aside })
        }
        // Not there yet: it is made.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(format!("{}: {e}", path.display()))),
    }
}

fn open_error(path: &Path, error: &sled::Error) -> StoreError {
    let shown = path.display().to_string();
    match error {
        // sled wraps the failed file lock in a text of its own.
        sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => StoreError::Locked { path: shown },
        sled::Error::Unsupported(_) if MarkFile::open(path).is_err() => {
            StoreError::Foreign { path: shown, found: error.to_string() }
        }
        error => match database(error.clone()) {
            StoreError::Torn { problem, .. } => torn(path, problem),
            _ => failed(format!("{shown}: {error}")),
        },
    }
}
