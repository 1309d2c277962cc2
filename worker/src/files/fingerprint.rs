//! A digest of the files that determine a model's results: workers with equal fingerprints run the same model.
//!
//! SHA-256 over the path inside the folder, the length and the content of every file, in the order of the paths. For a
//! file over [`WHOLE`] bytes, only the first [`WHOLE`] / 2 bytes (which contain a safetensors header) and [`SAMPLES`]
//! evenly spaced blocks of [`BLOCK`] bytes are hashed: that takes seconds for a model of 20 GB, and any training step
//! changes weights in every block. The digest protects against mistakes, not against forgery.
//!
//! A program that reads some of the files later keeps a [`Snapshot`], which detects files that changed in the meantime.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::error::{ModelError, Result};

/// Size up to which a file is hashed completely, in bytes.
pub const WHOLE: u64 = 256 << 20;
/// Number of blocks that are hashed of a larger file.
pub const SAMPLES: u64 = 1024;
/// Size of such a block in bytes.
pub const BLOCK: u64 = 64 << 10;

/// The digest; displayed in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Metadata of a file that changes when the file is written or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    /// Device, inode, and ctime in seconds and nanoseconds.
    #[cfg(unix)]
    unix: (u64, u64, i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self {
            size: about.len(),
            modified: about.modified().ok(),
            #[cfg(unix)]
            unix: {
                use std::os::unix::fs::MetadataExt as _;
                (about.dev(), about.ino(), about.ctime(), about.ctime_nsec())
            },
        })
    }
}

/// A record of files from before they were read.
#[derive(Debug)]
pub struct Snapshot {
    root: PathBuf,
    stamps: BTreeMap<PathBuf, Stamp>,
    digest: OnceLock<Fingerprint>,
}

impl Snapshot {
    /// Records files. Must be called before they are read. Ignores files that do not exist.
    pub fn of_files(root: &Path, files: impl IntoIterator<Item = PathBuf>) -> Self {
        let stamps = files.into_iter().filter_map(|file| Some((file.clone(), Stamp::of(&file)?))).collect();
        Self { root: root.into(), stamps, digest: OnceLock::new() }
    }

    /// Records a file, or all files of a folder, before any is read. `None` if there is no file.
    pub fn of_path(path: &Path) -> Option<Self> {
        let mut snapshot = match path.parent() {
            Some(parent) if path.is_file() => Self::of_files(parent, [path.to_owned()]),
            _ => Self::of_files(path, []),
        };
        if path.is_dir() {
            snapshot.add_folder(path);
        }
        (!snapshot.stamps.is_empty()).then_some(snapshot)
    }

    /// Records all files of a folder, before any is read. Ignores a folder that cannot be listed.
    pub fn add_folder(&mut self, folder: &Path) {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        self.stamps.extend(files.filter_map(|file| Some((file.clone(), Stamp::of(&file)?))));
    }

    /// Keeps only the files that were read. Fails if one was not recorded before or has changed.
    pub fn keep(&mut self, files: Vec<PathBuf>) -> Result<()> {
        let mut kept = BTreeMap::new();
        for file in files {
            let stamp = self.stamps.get(&file).cloned();
            kept.insert(file.clone(), stamp.ok_or(ModelError::Changed { path: file })?);
        }
        self.stamps = kept;
        self.unchanged()
    }

    /// Fails if a file has changed. If the digest is known already, a file that was rewritten with the same content
    /// counts as unchanged.
    pub fn unchanged(&self) -> Result<()> {
        let changed = self.stamps.iter().find(|(path, stamp)| Stamp::of(path).as_ref() != Some(*stamp));
        let Some((path, _)) = changed else { return Ok(()) };
        let same = self.digest.get().is_some_and(|known| self.digest().is_ok_and(|now| now == *known));
        if same { Ok(()) } else { Err(ModelError::Changed { path: path.clone() }) }
    }

    fn digest(&self) -> Result<Fingerprint> {
        fingerprint(&self.root, self.stamps.keys().cloned().collect())
    }

    /// The digest of the files, which must be unchanged.
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        if let Some(known) = self.digest.get() {
            return Ok(*known);
        }
        let digest = self.digest()?;
        self.unchanged()?;
        Ok(*self.digest.get_or_init(|| digest))
    }
}

/// Computes the digest of `files`, with their paths relative to `root`.
pub fn fingerprint(root: &Path, mut files: Vec<PathBuf>) -> Result<Fingerprint> {
    files.sort();
    files.dedup();
    let mut hash = Sha256::new();
    for path in &files {
        let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
        hash.update(name.as_bytes());
        hash.update([0]);
        add_content(&mut hash, path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
    }
    Ok(Fingerprint(hash.finalize().into()))
}

fn add_content(hash: &mut Sha256, path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    hash.update(size.to_le_bytes());
    if size <= WHOLE {
        return add_range(hash, &mut file, 0, size);
    }
    let head = WHOLE / 2;
    add_range(hash, &mut file, 0, head)?;
    let distance = (size - head - BLOCK) / (SAMPLES - 1);
    (0..SAMPLES).try_for_each(|i| add_range(hash, &mut file, head + i * distance, BLOCK))
}

fn add_range(hash: &mut Sha256, file: &mut File, start: u64, length: u64) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut left = length;
    while left > 0 {
        let part = left.min(buffer.len() as u64) as usize;
        file.read_exact(&mut buffer[..part])?;
        hash.update(&buffer[..part]);
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_or_replaced_after_it_was_looked_at_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&a, "one");
        write(&b, "two");
        let open = || {
            let mut snapshot = Snapshot::of_files(folder.path(), []);
            snapshot.add_folder(folder.path());
            snapshot.keep(vec![a.clone(), b.clone()]).unwrap();
            snapshot
        };
        let snapshot = open();
        let before = snapshot.fingerprint().unwrap();
        snapshot.unchanged().unwrap();
        // Replace the file with the same content, then with other content of the same length.
        let other = folder.path().join("c");
        write(&other, "two");
        std::fs::rename(&other, &b).unwrap();
        snapshot.unchanged().unwrap();
        write(&b, "owt");
        let error = snapshot.unchanged().unwrap_err().to_string();
        assert!(error.contains("/b' has changed since it was first read"), "{error}");
        assert_ne!(open().fingerprint().unwrap(), before);
        std::fs::remove_file(&b).unwrap();
        assert!(snapshot.unchanged().is_err());
        // A file that was not recorded is refused.
        let mut late = Snapshot::of_files(folder.path(), [a.clone()]);
        write(&b, "two");
        assert!(late.keep(vec![a.clone(), b.clone()]).is_err());
    }
}
