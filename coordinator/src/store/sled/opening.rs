//! Opens a store, and refuses a folder that is not one: another program's, another format's, in use, damaged, or short of
//! acknowledged records.
//!
//! A store that is short of acknowledged records is opened in two cases only: to look at it, and to continue with it after
//! somebody was told what is lost and accepted that.

use std::io;
use std::path::Path;

use super::creation;
use super::database::{self, Database, VERSION_KEY, open_error};
use super::errors::{failed, torn};
use super::files::{database_file, remove_unfinished_snapshots, set_aside, sync_names};
use super::mark::{self, Mark, MarkFile};
use super::store::SledStore;
use crate::ports::{Store, StoreError};
use crate::store::records::FORMAT_VERSION;

impl SledStore {
    /// Opens the store in this folder, or creates one if there is none.
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

    /// Opens the store in this folder; an error if there is none.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        refuse_missing(path)?;
        Self::open(path)
    }

    /// Opens the store in this folder, to look at it, even if it is short of acknowledged records. Also returns the error
    /// with which [`open`](Self::open) would refuse it.
    pub fn open_damaged(path: &Path) -> Result<(Self, Option<StoreError>), StoreError> {
        refuse_missing(path)?;
        start(path)
    }

    /// Opens the store in this folder, or creates one if there is none. If it is short of acknowledged records, it is
    /// accepted as it is from now on, and the log says what it lacks.
    pub fn open_accepting_loss(path: &Path) -> Result<Self, StoreError> {
        if !database_file(path).exists() {
            return Self::open(path);
        }
        let (store, refusal) = Self::open_damaged(path)?;
        // First, because a store that cannot be read cannot be accepted.
        let found = store.replay_any(&mut |_| {})?;
        if let Some(loss) = refusal.or(store.judge(&found).err()) {
            if store.tally()? != found {
                return Err(torn(path, "it has records of searches that it does not have"));
            }
            tracing::warn!("accepted: {loss}; continuing with {}", found.holding);
            store.adopt(found)?;
        }
        Ok(store)
    }
}

/// Opens a database that exists, and returns the reason why it should be refused. A database that is short of acknowledged
/// records is left unchanged.
fn start(path: &Path) -> Result<(SledStore, Option<StoreError>), StoreError> {
    let shown = || path.display().to_string();
    creation::clear_away(path).map_err(failed)?;
    remove_unfinished_snapshots(path).map_err(failed)?;
    let db = database::open(path)?;
    let read = |key| db.get(key).map_err(|e| open_error(path, &e));
    let marked = MarkFile::open(path);
    match read(VERSION_KEY)?.map(|bytes| <[u8; 8]>::try_from(&*bytes).map_or(0, u64::from_be_bytes)) {
        Some(FORMAT_VERSION) => {}
        Some(found) => return Err(StoreError::Version { path: shown(), found, supported: FORMAT_VERSION }),
        // With a mark beside it, it is a store that has lost everything.
        None if marked.is_ok() => {}
        None => {
            return Err(StoreError::Foreign { path: shown(), found: "a sled database of another program".into() });
        }
    }
    let stored = read(mark::KEY)?.and_then(|bytes| Mark::decode(&bytes)).unwrap_or_default();
    let database = Database::new(path, db)?;
    sync_names(path).map_err(failed)?;
    let (acknowledged, unmarked) = match marked {
        Ok(file) => (Some(file), None),
        Err(e) => (None, Some(StoreError::Unmarked { path: shown(), problem: mark_problem(path, &e) })),
    };
    let is_short = acknowledged.as_ref().map(MarkFile::newest).is_some_and(|acknowledged| {
        acknowledged.sequence > stored.sequence || acknowledged.sequence == stored.sequence && acknowledged != stored
    });
    let store = SledStore::new(database, stored, acknowledged);
    let refusal = match unmarked {
        None if is_short => store.judge(&store.tally()?).err(),
        unmarked => unmarked,
    };
    if refusal.is_none() {
        // What a crash left written and unacknowledged counts as acknowledged from now on.
        store.sync()?;
    }
    Ok((store, refusal))
}

/// Why the mark cannot be read.
fn mark_problem(store: &Path, error: &io::Error) -> String {
    let file = mark::path(store);
    match error.kind() {
        io::ErrorKind::NotFound => format!("{} is missing", file.display()),
        _ => format!("{}: {error}", file.display()),
    }
}

fn refuse_missing(path: &Path) -> Result<(), StoreError> {
    refuse_foreign(path)?;
    if database_file(path).exists() {
        return Ok(());
    }
    Err(StoreError::Foreign { path: path.display().to_string(), found: "there is no database".into() })
}

/// Refuses a folder that has files but no database: sled would create its own in the middle of them.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let foreign = |found: String| StoreError::Foreign { path: path.display().to_string(), found };
    match std::fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            Some(Ok(_)) if database_file(path).exists() || creation::is_unfinished(path) => Ok(()),
            Some(Ok(_)) if MarkFile::open(path).is_ok() => Err(torn(path, "its file 'db' is missing")),
            Some(Ok(first)) => {
                Err(foreign(format!("it contains '{}' and no database", first.file_name().to_string_lossy())))
            }
            _ => Ok(()),
        },
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Err(foreign("a file, not a folder".into())),
        // A new store here would hide the old one.
        Err(e) if e.kind() == io::ErrorKind::NotFound && database_file(&set_aside(path)).exists() => {
            let aside = set_aside(path).display().to_string();
            Err(StoreError::SetAside { path: path.display().to_string(), aside })
        }
        // It will be created.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(format!("{}: {e}", path.display()))),
    }
}
