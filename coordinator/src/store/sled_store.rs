//! The store on sled 0.34.
//!
//! sled's own `flush` ends in `sync_file_range` on Linux, which does not reach the disk's platter: [`SledStore::sync`]
//! therefore calls fsync on the database file after it.

use std::fs::File;
use std::path::{Path, PathBuf};

use evocache_proto::domain::{CandidateId, SearchId};

use super::{Records, Visit, Write, codec};
use crate::ports::{Fact, Store, StoreError};

/// The storage format that this program reads and writes.
pub const FORMAT_VERSION: u64 = 1;

const VERSION_KEY: &[u8] = b"!format";

/// Keeps records in a sled database.
#[derive(Debug)]
pub struct SledStore {
    db: sled::Db,
    file: File,
}

fn failed(e: impl std::fmt::Display) -> StoreError {
    StoreError::Failed(e.to_string())
}

impl SledStore {
    /// Opens the store in this folder, or makes one if there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        refuse_foreign(path)?;
        let db = sled::Config::new().path(path).open().map_err(|e| open_error(path, &e))?;
        match db.get(VERSION_KEY).map_err(failed)? {
            Some(bytes) => {
                let found = <[u8; 8]>::try_from(&*bytes).map_or(0, u64::from_be_bytes);
                if found != FORMAT_VERSION {
                    return Err(StoreError::Version { path: shown, found, supported: FORMAT_VERSION });
                }
            }
            None if db.is_empty() => {
                db.insert(VERSION_KEY, &FORMAT_VERSION.to_be_bytes()).map_err(failed)?;
            }
            None => {
                return Err(StoreError::Foreign { path: shown, found: "a sled database of another program".into() });
            }
        }
        let file = File::open(database_file(path)).map_err(failed)?;
        let store = Self { db, file };
        store.sync()?;
        Ok(store)
    }
}

fn database_file(path: &Path) -> PathBuf {
    path.join("db")
}

/// A folder with files but no database is somebody else's: sled would make a database in the middle of them.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let foreign = |found: String| StoreError::Foreign { path: path.display().to_string(), found };
    match std::fs::read_dir(path) {
        Ok(mut entries) => match entries.next() {
            Some(Ok(first)) if !database_file(path).exists() => {
                Err(foreign(format!("it holds '{}' and no database", first.file_name().to_string_lossy())))
            }
            _ => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Err(foreign("a file, not a folder".into())),
        // Not there yet: sled makes it.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(format!("{}: {e}", path.display()))),
    }
}

fn open_error(path: &Path, error: &sled::Error) -> StoreError {
    let shown = path.display().to_string();
    match error {
        // sled wraps the failed file lock in a text of its own.
        sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => StoreError::Locked { path: shown },
        sled::Error::Corruption { .. } | sled::Error::Unsupported(_) => {
            StoreError::Foreign { path: shown, found: error.to_string() }
        }
        _ => failed(format!("{shown}: {error}")),
    }
}

impl Records for sled::Db {
    fn scan(&self, prefix: &[u8], each: &mut Visit<'_>) -> Result<(), StoreError> {
        for entry in self.scan_prefix(prefix) {
            let (key, value) = entry.map_err(failed)?;
            each(&key, &value)?;
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(sled::Tree::get(self, key).map_err(failed)?.map(|value| value.to_vec()))
    }
}

impl Store for SledStore {
    fn load(&self) -> Result<Vec<Fact>, StoreError> {
        super::load(&self.db)
    }

    fn commit(&self, facts: &[Fact]) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for write in facts.iter().flat_map(codec::writes) {
            match write {
                Write::Put(key, value) => batch.insert(key, value),
                Write::Remove(key) => batch.remove(key),
                Write::RemovePrefix(prefix) => {
                    for key in self.db.scan_prefix(prefix).keys() {
                        batch.remove(key.map_err(failed)?);
                    }
                }
            }
        }
        self.db.apply_batch(batch).map_err(failed)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(failed)?;
        self.file.sync_data().map_err(failed)
    }

    fn thumbnails(&self, search: &SearchId, candidate: CandidateId) -> Result<Vec<Vec<u8>>, StoreError> {
        codec::thumbnails(&self.db, search, candidate)
    }
}
