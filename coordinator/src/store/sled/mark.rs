//! The mark: what a store acknowledged, kept outside of its database too.
//!
//! After a crash sled takes damage in its log for the end of the log: it cuts the log there and continues, without an error,
//! with what came before. So every batch writes a mark into the database, as the record `!mark`: the batch's sequence number
//! and the tally of all records after it. Once the batch is on the disk, and before any answer that depends on it, the same
//! mark goes into the file `mark` beside the database. The file has three slots:
//!
//! | bytes of a slot, at 0, 4096 and 8192 | what |
//! |---|---|
//! | 16 | `evocache mark 1\n` |
//! | 8 | sequence |
//! | 56 | tally: digest, records, searches, candidates, evaluations, pictures |
//! | 16 | XXH3 of the bytes before |
//!
//! Numbers are big-endian. Invariants:
//!
//! 1. *The file is never ahead of the disk.* A mark goes into the file only after the database's file was synced with that
//!    mark in it. So a power cut or a SIGKILL at any moment leaves a database that is at the file's mark, or ahead of it by
//!    batches that nobody was told of.
//! 2. *The file is never behind an answer.* The mark is in the last slot before the first answer that depends on it. So a
//!    database that is behind the file's mark has lost acknowledged records.
//! 3. *A torn write is not damage.* The last slot has the newest mark, as far as the system has it. The first two take marks
//!    in turn, each synced before the other is written: whatever a power cut tears, one of them is whole. The newest mark of
//!    all whole slots counts.
//! 4. *The database's mark agrees with its records*, because one batch writes both: if the records do not add up to it,
//!    some were lost or changed.
//!
//! Syncing the file after each batch would cost two fifths of the throughput, so it is synced at most every 50 ms. A killed
//! process loses nothing that the system has; after a power cut the file may lack the marks of the last 50 ms. So two
//! failures at once go undetected: damage to the last batches in the database, and either a power cut within 50 ms of them
//! or damage to the slot with the newest mark.
//!
//! Does not decide when a mark is made (`pending`), nor what happens to a store that lacks records (`opening`).

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tally::{self, Tally};
use crate::faults::{self, Point};
use crate::ports::StoreError;

/// The file's name.
const NAME: &str = "mark";
const MAGIC: &[u8; 16] = b"evocache mark 1\n";
/// Bytes of a slot: at least what a disk writes at once, so that a torn write of one slot leaves the others as they were.
const SLOT: usize = 4096;
/// The number of slots that are written and synced in turn.
const SYNCED: usize = 2;
/// The slot of the newest mark.
const NEWEST: usize = SYNCED;
const SLOTS: usize = SYNCED + 1;
/// The shortest time between two syncs of the file.
const EVERY: Duration = Duration::from_millis(50);

/// The record of the mark in the database.
pub(super) const KEY: &[u8] = b"!mark";
/// Bytes of a mark.
pub(super) const BYTES: usize = 8 + tally::BYTES;
/// Bytes of a slot that are used.
const WRITTEN: usize = MAGIC.len() + BYTES + 16;

/// What a store held after a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The number of batches so far.
    pub(super) sequence: u64,
    /// What all records add up to.
    pub(super) tally: Tally,
}

impl Mark {
    /// The form in the database.
    pub(super) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.tally.encode());
        bytes
    }

    /// Reads the form in the database.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sequence, tally) = bytes.split_first_chunk()?;
        let tally = Tally::decode(tally.try_into().ok()?);
        Some(Self { sequence: u64::from_be_bytes(*sequence), tally })
    }

    /// The form in a slot.
    fn slot(&self) -> [u8; WRITTEN] {
        let mut slot = [0; WRITTEN];
        slot[..16].copy_from_slice(MAGIC);
        slot[16..16 + BYTES].copy_from_slice(&self.encode());
        let check = tally::hash(&slot[..16 + BYTES]);
        slot[16 + BYTES..].copy_from_slice(&check.to_be_bytes());
        slot
    }

    /// Reads a slot; `None` if it is not whole.
    fn from_slot(slot: &[u8]) -> Option<Self> {
        let mark = Self::decode(slot.get(16..16 + BYTES)?)?;
        (mark.slot() == *slot.get(..WRITTEN)?).then_some(mark)
    }
}

/// The file. The database's lock protects it too.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    /// The newest mark in the file.
    newest: Mark,
    /// The newest mark that was synced since the file was opened, and when.
    synced: Option<(Mark, Instant)>,
    /// The slot of the next mark that is synced.
    next: usize,
    /// A sync failed: the system may take for written what is not on the disk.
    sync_failed: bool,
}

/// The mark file of the store in this folder.
pub(super) fn path(store: &Path) -> PathBuf {
    store.join(NAME)
}

impl MarkFile {
    /// Creates the file, or overwrites it, with this mark in all slots.
    pub(super) fn create(store: &Path, mark: Mark) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path(store))?;
        let mut bytes = [0; SLOTS * SLOT];
        for slot in bytes.chunks_exact_mut(SLOT) {
            slot[..WRITTEN].copy_from_slice(&mark.slot());
        }
        write_at(&file, &bytes, 0)?;
        file.sync_all()?;
        Ok(Self { file, newest: mark, synced: None, next: 0, sync_failed: false })
    }

    /// Opens the file; an error if no slot is whole.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path(store))?;
        let slot = |i: usize| bytes.get(i * SLOT..).and_then(Mark::from_slot).map(|mark| (i, mark));
        let newest_of = |slots: usize| (0..slots).filter_map(slot).max_by_key(|(_, mark)| mark.sequence);
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "none of its marks is whole");
        let (_, newest) = newest_of(SLOTS).ok_or_else(damaged)?;
        let next = newest_of(SYNCED).map_or(0, |(place, _)| (place + 1) % SYNCED);
        let file = OpenOptions::new().write(true).open(path(store))?;
        Ok(Self { file, newest, synced: None, next, sync_failed: false })
    }

    /// The newest mark: what was acknowledged.
    pub(super) fn newest(&self) -> Mark {
        self.newest
    }

    /// Whether a sync of the file failed.
    pub(super) fn sync_failed(&self) -> bool {
        self.sync_failed
    }

    /// Writes a mark that the database has on the disk, if it is newer, and syncs it if the last sync was long enough ago.
    #[expect(clippy::disallowed_methods, reason = "it limits how often the disk is synced; no decision depends on it")]
    pub(super) fn advance(&mut self, mark: Mark) -> Result<(), StoreError> {
        if mark.sequence <= self.newest.sequence {
            return Ok(());
        }
        faults::check(Point::MarkBefore)?;
        self.write(mark)?;
        faults::check(Point::MarkWritten)?;
        if self.synced.is_none_or(|(_, at)| at.elapsed() >= EVERY) {
            self.sync()?;
            self.synced = Some((mark, Instant::now()));
        }
        faults::check(Point::MarkAfter)
    }

    fn write(&mut self, mark: Mark) -> Result<(), StoreError> {
        write_at(&self.file, &mark.slot(), (NEWEST * SLOT) as u64).map_err(failed)?;
        self.newest = mark;
        Ok(())
    }

    /// Writes the newest mark to a synced slot, and syncs.
    fn sync(&mut self) -> Result<(), StoreError> {
        write_at(&self.file, &self.newest.slot(), (self.next * SLOT) as u64).map_err(failed)?;
        self.file.sync_data().inspect_err(|_| self.sync_failed = true).map_err(failed)?;
        self.next = (self.next + 1) % SYNCED;
        Ok(())
    }
}

impl Drop for MarkFile {
    fn drop(&mut self) {
        if self.synced.is_some_and(|(mark, _)| mark != self.newest) {
            // An error is harmless: a file that is behind the database is not a loss.
            let _ = self.sync();
        }
    }
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Failed(format!("the file '{NAME}': {error}"))
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u64) -> Mark {
        let mut tally = Tally::default();
        tally.add(b"s/a", &sequence.to_be_bytes());
        Mark { sequence, tally }
    }

    /// A file with these sequences in its synced slots, and its bytes.
    fn file(first: u64, second: u64) -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let mut file = MarkFile::create(folder.path(), Mark::default()).unwrap();
        for sequence in [first, second] {
            file.write(mark(sequence)).unwrap();
            file.sync().unwrap();
        }
        let bytes = std::fs::read(path(folder.path())).unwrap();
        (folder, bytes)
    }

    fn read(folder: &tempfile::TempDir, bytes: &[u8]) -> io::Result<Mark> {
        std::fs::write(path(folder.path()), bytes).unwrap();
        MarkFile::open(folder.path()).map(|file| file.newest())
    }

    #[test]
    fn the_newest_of_all_whole_marks_counts() {
        let (folder, bytes) = file(1, 2);
        let slots = |bytes: &[u8]| -> Vec<_> { bytes.chunks(SLOT).map(Mark::from_slot).collect() };
        assert_eq!(slots(&bytes), [1, 2, 2].map(|sequence| Some(mark(sequence))));
        let mut file = MarkFile::open(folder.path()).unwrap();
        assert_eq!(file.newest(), mark(2));
        for sequence in [7, 8, 9] {
            file.advance(mark(sequence)).unwrap();
        }
        // An older mark changes nothing.
        file.advance(mark(6)).unwrap();
        let read = std::fs::read(path(folder.path())).unwrap();
        assert_eq!(slots(&read)[NEWEST], Some(mark(9)), "whether synced or not");
        assert_eq!(MarkFile::open(folder.path()).unwrap().newest(), mark(9));
        drop(file);
        let read = std::fs::read(path(folder.path())).unwrap();
        assert!(slots(&read)[..SYNCED].contains(&Some(mark(9))), "synced when it is closed");
    }

    #[test]
    fn a_torn_slot_leaves_the_mark_before_it() {
        let (folder, bytes) = file(8, 9);
        let next = mark(10).slot();
        for torn in 0..WRITTEN {
            let mut torn_bytes = bytes.clone();
            // The next mark goes to the last slot, then to the first.
            for slot in [NEWEST, 0] {
                torn_bytes[slot * SLOT..][..torn].copy_from_slice(&next[..torn]);
                assert_eq!(read(&folder, &torn_bytes).unwrap(), mark(9), "{torn} bytes of the next mark");
            }
        }
        // The next mark overwrites the torn slots.
        let mut file = MarkFile::open(folder.path()).unwrap();
        file.advance(mark(10)).unwrap();
        let bytes = std::fs::read(path(folder.path())).unwrap();
        assert_eq!([0, 1, 2].map(|i| Mark::from_slot(&bytes[i * SLOT..])), [10, 9, 10].map(|n| Some(mark(n))));
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_detected() {
        let (folder, bytes) = file(8, 9);
        for bit in 0..WRITTEN * 8 {
            for slot in 0..SLOTS {
                let mut flipped = bytes.clone();
                flipped[slot * SLOT + bit / 8] ^= 1 << (bit % 8);
                assert!(Mark::from_slot(&flipped[slot * SLOT..]).is_none());
                if bit % 16 == 0 {
                    assert_eq!(read(&folder, &flipped).unwrap(), mark(9));
                }
            }
        }
    }

    #[test]
    fn a_file_without_a_whole_mark_is_refused() {
        let (folder, bytes) = file(1, 2);
        let mut all = bytes.clone();
        (0..SLOTS).for_each(|slot| all[slot * SLOT + 20] ^= 1);
        for bad in [&all[..], &[0; SLOTS * SLOT], &[], &bytes[..50], b"something else"] {
            let error = read(&folder, bad).unwrap_err();
            assert!(error.to_string().contains("none of its marks is whole"), "{error}");
        }
        assert_eq!(read(&folder, &bytes[..SLOT + 10]).unwrap(), mark(1), "cut in the second slot");
        std::fs::remove_file(path(folder.path())).unwrap();
        assert_eq!(MarkFile::open(folder.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
