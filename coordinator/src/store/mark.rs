//! The mark: what a store acknowledged, known outside of its database.
//!
//! After a crash sled takes damage in its log for the end of what was written: it cuts the log there and goes on, without
//! a word, with what came before. So what was acknowledged is kept twice. Every batch writes a mark into the database, as
//! the record `!mark`: the batch's sequence number and the tally of all records after it. And after a batch is on the disk,
//! before anybody is told so, the same mark goes into the file `mark` beside the database:
//!
//! | bytes from 0 and from 4096 | what |
//! |---|---|
//! | 16 | `evocache mark 1\n` |
//! | 8 | sequence |
//! | 56 | tally: digest, records, searches, candidates, evaluations, pictures |
//! | 16 | XXH3 of the bytes before |
//!
//! Numbers are big-endian. Invariants:
//!
//! 1. *The file is never ahead of the disk.* A mark is written to the file only after the database's file was synced with
//!    that mark in it. So a power cut or a SIGKILL at any moment leaves a database that is at the file's mark or ahead of
//!    it, by what nobody was told of.
//! 2. *The file is never behind an answer.* The mark is synced before the first answer that depends on it. So a database
//!    behind the file's mark has lost what was acknowledged.
//! 3. *A torn write is no damage.* Marks go into the two slots in turn, each on a page of its own. While one is written
//!    the other is whole, and that one is the last that anybody was told of.
//! 4. *The database's mark is true of its records*, since both are written by one batch: records that do not add up to it
//!    were lost or changed.
//!
//! What this does not see: the newest slot damaged, and at the same time the database, in its last batch.
//!
//! Absent: when a mark is made (`pending`), and what to do about a store that falls short of it (`sled_store`).

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::tally::{self, Tally};
use crate::faults::{self, Point};
use crate::ports::StoreError;

/// The file's name.
const NAME: &str = "mark";
const MAGIC: &[u8; 16] = b"evocache mark 1\n";
/// The least that a disk writes at once, or more: a torn write of one slot leaves the other as it was.
const SLOT: usize = 4096;
const SLOTS: usize = 2;

/// Bytes of a mark.
pub(super) const BYTES: usize = 8 + tally::BYTES;
const WRITTEN: usize = MAGIC.len() + BYTES + 16;

/// What a store held after a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// How many batches there were.
    pub(super) sequence: u64,
    /// What all records add up to.
    pub(super) tally: Tally,
}

impl Mark {
    /// As the database has it.
    pub(super) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.tally.encode());
        bytes
    }

    /// Back from the database.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (sequence, tally) = bytes.split_first_chunk()?;
        let tally = Tally::decode(tally.try_into().ok()?);
        Some(Self { sequence: u64::from_be_bytes(*sequence), tally })
    }

    /// As a slot has it.
    fn slot(&self) -> [u8; WRITTEN] {
        let mut slot = [0; WRITTEN];
        slot[..16].copy_from_slice(MAGIC);
        slot[16..16 + BYTES].copy_from_slice(&self.encode());
        let check = tally::hash(&slot[..16 + BYTES]);
        slot[16 + BYTES..].copy_from_slice(&check.to_be_bytes());
        slot
    }

    /// Back from a slot, if it is whole.
    fn from_slot(slot: &[u8]) -> Option<Self> {
        let mark = Self::decode(slot.get(16..16 + BYTES)?)?;
        (mark.slot() == *slot.get(..WRITTEN)?).then_some(mark)
    }
}

/// The file. Whoever has the database's lock has this.
#[derive(Debug)]
pub(super) struct MarkFile {
    file: File,
    /// The newest mark in it.
    newest: Mark,
    /// Where the next one goes.
    next: usize,
    /// The system may take for written what is not on the disk.
    pub(super) unsure: bool,
}

/// Where the mark of the store in this folder is.
pub(super) fn path(store: &Path) -> PathBuf {
    store.join(NAME)
}

impl MarkFile {
    /// Makes the file, or makes it anew, with this mark in both slots.
    pub(super) fn create(store: &Path, mark: Mark) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path(store))?;
        let mut bytes = [0; SLOTS * SLOT];
        for slot in bytes.chunks_exact_mut(SLOT) {
            slot[..WRITTEN].copy_from_slice(&mark.slot());
        }
        write_at(&file, &bytes, 0)?;
        file.sync_all()?;
        Ok(Self { file, newest: mark, next: 0, unsure: false })
    }

    /// Opens the file; says what is wrong if nothing can be read of it.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path(store))?;
        let slot = |i: usize| bytes.get(i * SLOT..).and_then(Mark::from_slot).map(|mark| (i, mark));
        let newest = (0..SLOTS).filter_map(slot).max_by_key(|(_, mark)| mark.sequence);
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "both of its marks are damaged");
        let (place, newest) = newest.ok_or_else(damaged)?;
        let file = OpenOptions::new().write(true).open(path(store))?;
        Ok(Self { file, newest, next: (place + 1) % SLOTS, unsure: false })
    }

    /// What was acknowledged.
    pub(super) fn newest(&self) -> Mark {
        self.newest
    }

    /// Writes and syncs a mark that the database has on the disk, unless it is there already.
    pub(super) fn advance(&mut self, mark: Mark) -> Result<(), StoreError> {
        if mark.sequence <= self.newest.sequence {
            return Ok(());
        }
        let told = |e: io::Error| StoreError::Failed(format!("the file '{NAME}': {e}"));
        faults::check(Point::MarkBefore)?;
        write_at(&self.file, &mark.slot(), (self.next * SLOT) as u64).map_err(told)?;
        faults::check(Point::MarkWritten)?;
        self.file.sync_data().inspect_err(|_| self.unsure = true).map_err(told)?;
        faults::check(Point::MarkAfter)?;
        (self.newest, self.next) = (mark, (self.next + 1) % SLOTS);
        Ok(())
    }
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

    /// A file whose slots hold these two, and its bytes.
    fn file(first: u64, second: u64) -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let mut file = MarkFile::create(folder.path(), Mark::default()).unwrap();
        file.advance(mark(first)).unwrap();
        file.advance(mark(second)).unwrap();
        let bytes = std::fs::read(path(folder.path())).unwrap();
        (folder, bytes)
    }

    fn read(folder: &tempfile::TempDir, bytes: &[u8]) -> io::Result<Mark> {
        std::fs::write(path(folder.path()), bytes).unwrap();
        MarkFile::open(folder.path()).map(|file| file.newest())
    }

    #[test]
    fn marks_go_into_both_slots_in_turn_and_the_newest_counts() {
        let (folder, bytes) = file(1, 2);
        assert_eq!(bytes.len(), 8192);
        assert_eq!(Mark::from_slot(&bytes), Some(mark(1)));
        assert_eq!(Mark::from_slot(&bytes[4096..]), Some(mark(2)));
        let mut file = MarkFile::open(folder.path()).unwrap();
        assert_eq!(file.newest(), mark(2));
        file.advance(mark(7)).unwrap();
        // An older one changes nothing.
        file.advance(mark(6)).unwrap();
        let bytes = std::fs::read(path(folder.path())).unwrap();
        assert_eq!(Mark::from_slot(&bytes), Some(mark(7)));
        assert_eq!(Mark::from_slot(&bytes[4096..]), Some(mark(2)));
    }

    #[test]
    fn a_torn_slot_leaves_the_mark_before_it() {
        let (folder, bytes) = file(8, 9);
        let next = mark(10).slot();
        for torn in 0..WRITTEN {
            let mut torn_bytes = bytes.clone();
            torn_bytes[..torn].copy_from_slice(&next[..torn]);
            assert_eq!(read(&folder, &torn_bytes).unwrap(), mark(9), "{torn} bytes of the next mark");
        }
        // It is written over, so that a whole one follows.
        let mut file = MarkFile::open(folder.path()).unwrap();
        file.advance(mark(10)).unwrap();
        assert_eq!(MarkFile::open(folder.path()).unwrap().newest(), mark(10));
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_seen() {
        let (folder, bytes) = file(8, 9);
        for bit in 0..WRITTEN * 8 {
            let (mut older, mut newer) = (bytes.clone(), bytes.clone());
            older[bit / 8] ^= 1 << (bit % 8);
            newer[SLOT + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&folder, &older).unwrap(), mark(9));
            assert_eq!(read(&folder, &newer).unwrap(), mark(8));
        }
    }

    #[test]
    fn a_file_without_a_whole_mark_is_refused() {
        let (folder, bytes) = file(1, 2);
        let mut both = bytes.clone();
        both[20] ^= 1;
        both[SLOT + 20] ^= 1;
        for bad in [&both[..], &[0; 8192], &[], &bytes[..50], b"something else"] {
            let error = read(&folder, bad).unwrap_err();
            assert!(error.to_string().contains("damaged"), "{error}");
        }
        assert_eq!(read(&folder, &bytes[..SLOT + 10]).unwrap(), mark(1), "cut in the second slot");
        std::fs::remove_file(path(folder.path())).unwrap();
        assert_eq!(MarkFile::open(folder.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
