//! A backup: all records of a store as one stream of bytes, with a digest that shows any later change.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `evocache-backup\n` |
//! | 4 | version of this layout |
//! | 8 | storage format of the records |
//! | 8 | number of records |
//! | 4 + n | length and bytes of a key; ascending |
//! | 4 + n | length and bytes of its value |
//! | 32 | SHA-256 of all bytes before it |
//!
//! Numbers are big-endian. Equal stores give equal bytes, so the digest identifies the store as well as the file.
//!
//! **Invariant:** knows no database and no file: names, renames and fsync are `upkeep`'s.

use std::io::{self, BufRead, Read, Write};

use sha2::{Digest, Sha256};

use super::medium::Visit;
use super::records::FORMAT_VERSION;
use crate::ports::{BackupError, Progress, StoreError};

const MAGIC: &[u8; 16] = b"evocache-backup\n";
const LAYOUT: u32 = 1;

/// What was written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Number of records.
    pub records: u64,
    /// Length of the stream in bytes.
    pub bytes: u64,
    /// SHA-256 of everything before the digest itself.
    pub digest: [u8; 32],
}

/// Why a store cannot be written to a stream, or read from one.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another backup of the store is under way.
    #[error("{}", BackupError::Busy)]
    Busy,
    /// More than this many bytes changed while the store was read.
    #[error("{}", BackupError::Overtaken(*.0))]
    Overtaken(usize),
    /// The bytes are not a backup.
    #[error("it is not an evocache backup")]
    Foreign,
    /// Its layout or the records' format is another one.
    #[error("its {what} is {found}, this program reads {supported}")]
    Version {
        /// Which of the two.
        what: &'static str,
        /// The version in the stream.
        found: u64,
        /// The version that this program reads.
        supported: u64,
    },
    /// The stream was cut off, or changed since it was written.
    #[error("{0}")]
    Damaged(String),
}

/// Writes the `count` records that `pass` visits.
pub(super) fn write(
    count: u64,
    pass: impl FnOnce(&mut Visit<'_>) -> Result<(), StreamError>,
    out: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<Summary, StreamError> {
    let mut out = Hashed { inner: out, hash: Sha256::new(), bytes: 0 };
    out.write_all(MAGIC)?;
    out.write_all(&LAYOUT.to_be_bytes())?;
    out.write_all(&FORMAT_VERSION.to_be_bytes())?;
    out.write_all(&count.to_be_bytes())?;
    let (mut records, mut refused) = (0, None);
    let passed = pass(&mut |key, value| {
        records += 1;
        progress(records, count);
        let written = write_field(&mut out, key).and_then(|()| write_field(&mut out, value));
        written.map_err(|e| {
            let failed = StoreError::Failed(e.to_string());
            refused = Some(e);
            failed
        })
    });
    passed.map_err(|e| refused.take().map_or(e, StreamError::Io))?;
    let Hashed { inner, hash, bytes } = out;
    let digest: [u8; 32] = hash.finalize().into();
    inner.write_all(&digest)?;
    Ok(Summary { records, bytes: bytes + digest.len() as u64, digest })
}

/// Reads a stream to its end and checks every byte of it.
pub fn verify(from: &mut dyn BufRead, progress: &mut Progress<'_>) -> Result<Summary, StreamError> {
    read(from, progress, &mut |_, _| Ok(()))
}

/// Takes a record's key and value.
pub(super) type Take<'a> = dyn FnMut(Vec<u8>, Vec<u8>) -> Result<(), StoreError> + 'a;

/// Reads a stream to its end. Records are passed on before the digest is checked.
pub(super) fn read(
    from: &mut dyn BufRead,
    progress: &mut Progress<'_>,
    take: &mut Take<'_>,
) -> Result<Summary, StreamError> {
    let mut from = Hashed { inner: from, hash: Sha256::new(), bytes: 0 };
    match from.fixed::<16>() {
        Ok(magic) if &magic == MAGIC => {}
        Ok(_) | Err(StreamError::Damaged(_)) => return Err(StreamError::Foreign),
        Err(e) => return Err(e),
    }
    expect("backup layout", u32::from_be_bytes(from.fixed()?).into(), LAYOUT.into())?;
    expect("storage format", u64::from_be_bytes(from.fixed()?), FORMAT_VERSION)?;
    let count = u64::from_be_bytes(from.fixed()?);
    let mut last: Option<Vec<u8>> = None;
    for record in 1..=count {
        let (key, value) = (from.field()?, from.field()?);
        if last.is_some_and(|last| last >= key) {
            return Err(StreamError::Damaged(format!("record {record} is out of order")));
        }
        last = Some(key.clone());
        take(key, value)?;
        progress(record, count);
    }
    let Hashed { inner, hash, bytes } = from;
    let digest: [u8; 32] = hash.finalize().into();
    let mut from = Hashed { inner, hash: Sha256::new(), bytes };
    if from.fixed::<32>()? != digest {
        return Err(StreamError::Damaged("its content does not match its digest".into()));
    }
    if !from.inner.fill_buf()?.is_empty() {
        return Err(StreamError::Damaged("it has bytes after its end".into()));
    }
    Ok(Summary { records: count, bytes: from.bytes, digest })
}

fn expect(what: &'static str, found: u64, supported: u64) -> Result<(), StreamError> {
    if found == supported { Ok(()) } else { Err(StreamError::Version { what, found, supported }) }
}

fn write_field(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a record is larger than 4 GiB"))?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(bytes)
}

/// Hashes and counts all bytes that pass through it.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashed<&mut dyn Write> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Hashed<&mut dyn BufRead> {
    /// Reads `length` bytes. A false length allocates no more than the stream holds.
    fn take(&mut self, length: u64) -> Result<Vec<u8>, StreamError> {
        let mut bytes = vec![];
        (&mut *self.inner).take(length).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < length {
            return Err(StreamError::Damaged("it is cut off".into()));
        }
        self.hash.update(&bytes);
        self.bytes += length;
        Ok(bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], StreamError> {
        let bytes = self.take(N as u64)?;
        <[u8; N]>::try_from(bytes).map_err(|_| StreamError::Damaged("it is cut off".into()))
    }

    fn field(&mut self) -> Result<Vec<u8>, StreamError> {
        let length = u32::from_be_bytes(self.fixed()?);
        self.take(u64::from(length))
    }
}
