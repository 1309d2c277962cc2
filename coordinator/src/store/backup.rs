//! A store as one stream of bytes: every record, and a digest that tells whether anything has changed since.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `evocache-backup\n` |
//! | 4 | version of this layout |
//! | 8 | storage format of the records |
//! | 8 | number of records |
//! | 4 + n | length and bytes of a key; ascending |
//! | 4 + n | length and bytes of its value |
//! | 32 | SHA-256 of all bytes before |
//!
//! Numbers are big-endian. Equal stores give equal bytes, so the digest is the store's as well as the file's.
//! Absent: names of files, renames and fsync; those are `upkeep`'s.

use std::io::{self, BufRead, Read, Write};

use sha2::{Digest, Sha256};

use super::moment::{KEPT, Reading, Steps};
use super::{FORMAT_VERSION, SledStore, Visit};
use crate::ports::{BackupError, Progress, Store, StoreError};

const MAGIC: &[u8; 16] = b"evocache-backup\n";
const LAYOUT: u32 = 1;
/// Bytes of a transaction when a store is written.
const BATCH: usize = 1024 * 1024;

/// What was written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Records.
    pub records: u64,
    /// Length of the stream.
    pub bytes: u64,
    /// SHA-256 of all but itself.
    pub digest: [u8; 32],
}

/// Why a store cannot be written to a stream, or read from one.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The other side refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another moment of the store is being read.
    #[error("{}", BackupError::Busy)]
    Busy,
    /// What was changed while the store was read is more than so many bytes.
    #[error("{}", BackupError::Overtaken(*.0))]
    Overtaken(usize),
    /// Not such a stream at all.
    #[error("it is no backup of evocache")]
    Foreign,
    /// Written by another evocache.
    #[error("it holds format version {found}, this program reads version {FORMAT_VERSION}")]
    Version {
        /// The version of layout or records.
        found: u64,
    },
    /// Cut off, or changed since it was written.
    #[error("{0}")]
    Damaged(String),
}

/// Writes all records of a store; an error if they are not those that were acknowledged.
pub fn write(store: &SledStore, out: &mut dyn Write, progress: &mut Progress<'_>) -> Result<Summary, StreamError> {
    write_all(store.count(), |each| Ok(store.records(each)?), out, progress)
}

/// Writes all records that a store holds at this moment, while others write.
pub(super) fn write_moment(
    store: &impl Steps,
    out: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<(), BackupError> {
    let written = Reading::begin(store, KEPT).and_then(|reading| {
        let count = reading.mark.tally.holding.records;
        write_all(count, |each| reading.records(each), out, progress)
    });
    written.map(drop).map_err(|e| match e {
        StreamError::Store(e) => e.into(),
        StreamError::Io(e) => BackupError::Untaken(e),
        StreamError::Busy => BackupError::Busy,
        StreamError::Overtaken(most) => BackupError::Overtaken(most),
        e @ (StreamError::Foreign | StreamError::Version { .. } | StreamError::Damaged(_)) => {
            StoreError::Failed(e.to_string()).into()
        }
    })
}

fn write_all(
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
        let written = piece(&mut out, key).and_then(|()| piece(&mut out, value));
        written.map_err(|e| {
            let told = StoreError::Failed(e.to_string());
            refused = Some(e);
            told
        })
    });
    passed.map_err(|e| refused.take().map_or(e, StreamError::Io))?;
    let Hashed { inner, hash, bytes } = out;
    let digest: [u8; 32] = hash.finalize().into();
    inner.write_all(&digest)?;
    Ok(Summary { records, bytes: bytes + digest.len() as u64, digest })
}

/// The digest of a store: that of the stream which [`write()`] would make of it.
pub fn digest(store: &SledStore, progress: &mut Progress<'_>) -> Result<Summary, StreamError> {
    write(store, &mut io::sink(), progress)
}

/// Reads a stream to its end and checks every byte of it.
pub fn verify(from: &mut dyn BufRead, progress: &mut Progress<'_>) -> Result<Summary, StreamError> {
    read(from, progress, &mut |_, _| Ok(()))
}

/// Writes a stream's records into an empty store. What is there when this fails is of no use.
pub fn restore(from: &mut dyn BufRead, store: &SledStore, progress: &mut Progress<'_>) -> Result<Summary, StreamError> {
    let mut filler = Filler { store, batch: vec![], bytes: 0 };
    let summary = read(from, progress, &mut |key, value| filler.take(key, value))?;
    filler.finish()?;
    Ok(summary)
}

/// Copies the records of one store into an empty one; an error if they are not those that were acknowledged.
pub fn copy(from: &SledStore, to: &SledStore, progress: &mut Progress<'_>) -> Result<(), StreamError> {
    let (count, mut done) = (from.count(), 0);
    let mut filler = Filler { store: to, batch: vec![], bytes: 0 };
    from.records(&mut |key, value| {
        done += 1;
        progress(done, count);
        filler.take(key.to_vec(), value.to_vec())
    })?;
    Ok(filler.finish()?)
}

/// Collects records until they are worth a transaction. By bytes: thumbnails are large, the rest is small.
struct Filler<'a> {
    store: &'a SledStore,
    batch: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Filler<'_> {
    fn take(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.bytes += key.len() + value.len();
        self.batch.push((key, value));
        if self.bytes < BATCH {
            return Ok(());
        }
        self.bytes = 0;
        self.store.put(self.batch.drain(..))
    }

    fn finish(self) -> Result<(), StoreError> {
        self.store.put(self.batch)?;
        self.store.sync()
    }
}

type Take<'a> = dyn FnMut(Vec<u8>, Vec<u8>) -> Result<(), StoreError> + 'a;

fn read(from: &mut dyn BufRead, progress: &mut Progress<'_>, each: &mut Take<'_>) -> Result<Summary, StreamError> {
    let mut from = Hashed { inner: from, hash: Sha256::new(), bytes: 0 };
    match from.fixed::<16>() {
        Ok(magic) if &magic == MAGIC => {}
        Ok(_) | Err(StreamError::Damaged(_)) => return Err(StreamError::Foreign),
        Err(e) => return Err(e),
    }
    let layout = u64::from(u32::from_be_bytes(from.fixed()?));
    if layout != u64::from(LAYOUT) {
        return Err(StreamError::Version { found: layout });
    }
    let format = u64::from_be_bytes(from.fixed()?);
    if format != FORMAT_VERSION {
        return Err(StreamError::Version { found: format });
    }
    let count = u64::from_be_bytes(from.fixed()?);
    let mut last: Option<Vec<u8>> = None;
    for record in 1..=count {
        let (key, value) = (from.piece()?, from.piece()?);
        if last.is_some_and(|last| last >= key) {
            return Err(StreamError::Damaged(format!("record {record} is out of order")));
        }
        last = Some(key.clone());
        each(key, value)?;
        progress(record, count);
    }
    let Hashed { inner, hash, bytes } = from;
    let digest: [u8; 32] = hash.finalize().into();
    let mut from = Hashed { inner, hash: Sha256::new(), bytes };
    if from.fixed::<32>()? != digest {
        return Err(StreamError::Damaged("its digest is that of other bytes".into()));
    }
    if !from.inner.fill_buf()?.is_empty() {
        return Err(StreamError::Damaged("it goes on after its end".into()));
    }
    Ok(Summary { records: count, bytes: from.bytes, digest })
}

fn piece(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a record has more than 4 GiB"))?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(bytes)
}

/// What passes through is hashed and counted.
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
    /// So many bytes. A length that lies allocates no more than there is.
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

    fn piece(&mut self) -> Result<Vec<u8>, StreamError> {
        let length = u32::from_be_bytes(self.fixed()?);
        self.take(u64::from(length))
    }
}
