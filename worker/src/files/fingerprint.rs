//! A digest of the files that decide what a model computes: two workers with one fingerprint run the same model.
//!
//! SHA-256 over, for every file in the order of its path inside the folder: the path, the length, and the content.
//! Of a file over [`WHOLE`] bytes, the first [`WHOLE`] / 2 bytes (which hold a safetensors header) and
//! [`SAMPLES`] blocks of [`BLOCK`] bytes at even distances are taken instead of all: a model of 20 GB takes seconds,
//! and any training step changes weights in every block. It guards against mistakes, not against forgery.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{ModelError, Result};

/// Files up to this size are read whole.
pub const WHOLE: u64 = 256 << 20;
/// Blocks taken of a larger one.
pub const SAMPLES: u64 = 1024;
/// Size of such a block.
pub const BLOCK: u64 = 64 << 10;

/// The digest, shown in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of `files`, named by their paths below `root`.
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
