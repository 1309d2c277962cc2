//! Backups and copies of a store that no coordinator runs on. `stream` has the format; a running store is read by
//! `sled/live_backup.rs`.

use std::io::{self, BufRead, Write};

pub use super::stream::{StreamError, Summary, verify};

use super::sled::SledStore;
use super::stream;
use crate::ports::{Progress, Store, StoreError};

/// Bytes of a transaction when a store is filled.
const BATCH: usize = 1024 * 1024;

/// Writes all records of a store; an error if they are not the acknowledged ones.
pub fn write(store: &SledStore, out: &mut dyn Write, progress: &mut Progress<'_>) -> Result<Summary, StreamError> {
    stream::write(store.count(), |visit| Ok(store.records(visit)?), out, progress)
}

/// The digest of a store: that of the stream which [`write()`] would make of it.
pub fn digest(store: &SledStore, progress: &mut Progress<'_>) -> Result<Summary, StreamError> {
    write(store, &mut io::sink(), progress)
}

/// Writes a stream's records into an empty store. If this fails, the store's content is unusable.
pub fn restore(from: &mut dyn BufRead, store: &SledStore, progress: &mut Progress<'_>) -> Result<Summary, StreamError> {
    let mut filler = Filler { store, batch: vec![], bytes: 0 };
    let summary = stream::read(from, progress, &mut |key, value| filler.take(key, value))?;
    filler.finish()?;
    Ok(summary)
}

/// Copies the records of one store into an empty one; an error if they are not the acknowledged ones.
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

/// Collects records into transactions, by bytes: thumbnails are large, everything else is small.
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
