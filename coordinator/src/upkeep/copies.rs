//! Backups: writes a store to one file, and makes a store from such a file.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::error::{UpkeepError, file};
use super::files;
use crate::ports::Progress;
use crate::store::SledStore;
use crate::store::backup::{self, StreamError, Summary};

/// The number of names that are tried for an unfinished backup.
const ATTEMPTS: usize = 16;

/// A backup that is being written. It has another name until it is complete.
#[derive(Debug)]
pub struct Unfinished {
    to: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
    is_placed: bool,
}

impl Unfinished {
    /// Creates a file that must not exist. If `to` is a folder, the file is called `name` in it.
    pub fn begin(to: &Path, name: &str) -> Result<Self, UpkeepError> {
        let to = if to.is_dir() { to.join(name) } else { to.to_owned() };
        if to.to_string_lossy().ends_with(std::path::is_separator) {
            return Err(UpkeepError::NoFolder(to));
        }
        // A dangling link counts as existing too.
        if to.symlink_metadata().is_ok() {
            return Err(UpkeepError::Exists(to));
        }
        // The name is unique to this process: another one may be writing a backup to the same place.
        for attempt in 0..ATTEMPTS {
            let partial = files::beside(&to, &format!(".{}-{attempt}.partial", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&partial) {
                Ok(out) => return Ok(Self { to, partial, out: BufWriter::new(out), is_placed: false }),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(file("create", &partial)(e)),
            }
        }
        Err(UpkeepError::Exists(files::beside(&to, &format!(".{}-0.partial", std::process::id()))))
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UpkeepError> {
        self.out.write_all(bytes).map_err(file("write", &self.partial))
    }

    /// Reads the file back, checks every byte of it, and gives it its name.
    pub fn finish_verified(mut self) -> Result<(PathBuf, Summary), UpkeepError> {
        self.sync()?;
        let written = File::open(&self.partial).map_err(file("open", &self.partial))?;
        let verified = backup::verify(&mut BufReader::new(written), &mut |_, _| {});
        let summary = verified.map_err(|problem| UpkeepError::Backup { path: self.partial.clone(), problem })?;
        Ok((self.place()?, summary))
    }

    fn sync(&mut self) -> Result<(), UpkeepError> {
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        synced.map_err(file("write", &self.partial))
    }

    fn place(mut self) -> Result<PathBuf, UpkeepError> {
        // Unlike a rename, a link does not replace a file that was created meanwhile; not every file system has links.
        match std::fs::hard_link(&self.partial, &self.to) {
            Ok(()) => std::fs::remove_file(&self.partial).map_err(file("remove", &self.partial))?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(UpkeepError::Exists(self.to.clone())),
            Err(_) => std::fs::rename(&self.partial, &self.to).map_err(file("rename", &self.partial))?,
        }
        self.is_placed = true;
        files::sync_parent(&self.to)?;
        Ok(self.to.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_placed {
            // Part of a backup is useless; the first error is the one that matters.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Writes the store in `data` to a file that must not exist. If `to` is a folder, the file is called `name` in it.
pub fn backup(
    data: &Path,
    to: &Path,
    name: &str,
    progress: &mut Progress<'_>,
) -> Result<(PathBuf, Summary), UpkeepError> {
    let mut unfinished = Unfinished::begin(to, name)?;
    let store = SledStore::open_existing(data)?;
    let Unfinished { partial, out, .. } = &mut unfinished;
    let summary = backup::write(&store, out, progress).map_err(|problem| match problem {
        StreamError::Store(e) => UpkeepError::Store(e),
        StreamError::Io(e) => file("write", partial)(e),
        problem => UpkeepError::Backup { path: partial.clone(), problem },
    })?;
    unfinished.sync()?;
    Ok((unfinished.place()?, summary))
}

/// Makes a store from a backup in `data`, which must be empty or not exist. Nothing is written before the file's digest is
/// verified, and the folder appears only once the store is complete.
pub fn restore(from: &Path, data: &Path, progress: &mut Progress<'_>) -> Result<Summary, UpkeepError> {
    if !files::is_free(data)? {
        return Err(UpkeepError::NotEmpty(data.to_owned()));
    }
    let open = || File::open(from).map(BufReader::new).map_err(file("open", from));
    let bad = |problem| match problem {
        StreamError::Store(e) => UpkeepError::Store(e),
        StreamError::Io(e) => file("read", from)(e),
        problem => UpkeepError::Backup { path: from.to_owned(), problem },
    };
    backup::verify(&mut open()?, &mut |_, _| {}).map_err(bad)?;
    let partial = files::beside(data, ".restoring");
    files::clear(&partial)?;
    let made = make(&partial, |store| backup::restore(&mut open()?, store, progress).map_err(bad));
    let placed = made.and_then(|summary| {
        std::fs::rename(&partial, data).map_err(file("rename", &partial))?;
        files::sync_parent(data)?;
        Ok(summary)
    });
    if placed.is_err() {
        // Part of a store is useless; the first error is the one that matters.
        let _ = std::fs::remove_dir_all(&partial);
    }
    placed
}

/// Makes a store in a new folder, reads it back, and closes it.
pub(super) fn make(
    folder: &Path,
    fill: impl FnOnce(&SledStore) -> Result<Summary, UpkeepError>,
) -> Result<Summary, UpkeepError> {
    let store = SledStore::open(folder)?;
    let meant = fill(&store)?;
    drop(store);
    // Opened again, to compare what is on the disk.
    let store = SledStore::open_existing(folder)?;
    match backup::digest(&store, &mut |_, _| {}) {
        Ok(found) if found.digest == meant.digest => {}
        Ok(_) => return Err(UpkeepError::Differs(folder.to_owned())),
        Err(StreamError::Store(e)) => return Err(e.into()),
        Err(problem) => return Err(UpkeepError::Backup { path: folder.to_owned(), problem }),
    }
    drop(store);
    files::sync_tree(folder)?;
    Ok(meant)
}
