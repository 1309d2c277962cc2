//! The mark: what a store acknowledged, known outside of its database.
//!
//! After a crash sled takes damage in its log for the end of what was written: it cuts the log there and goes on, without
//! a word, with what came before. So what was acknowledged is kept twice. Every batch writes a mark into the database, as
//! the record `!mark`: the batch's sequence number and the tally of all records after it. And after a batch is on the disk,
//! before anybody is told so, the same mark goes into the file `mark` beside the database. That has three slots:
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
//! 1. *The file is never ahead of the disk.* A mark is written to the file only after the database's file was synced with
//!    that mark in it. So a power cut or a SIGKILL at any moment leaves a database that is at the file's mark or ahead of
//!    it, by what nobody was told of.
//! 2. *The file is never behind an answer.* The mark is in the last slot before the first answer that depends on it. So a
//!    database behind the file's mark has lost what was acknowledged.
//! 3. *A torn write is no damage.* The last slot has the newest mark as the system has it. The first two take marks in turn,
//!    each synced before the other is written: whatever a power cut tears, one of them is whole. Of all that are whole the
//!    newest counts.
//! 4. *The database's mark is true of its records*, since both are written by one batch: records that do not add up to it
//!    were lost or changed.
//!
//! To sync the file after each batch would cost two fifths of the throughput, so that is done every 50 ms at most. A killed
//! process loses nothing of what the system has; after a power cut the file may be behind by the answers of so long. What
//! this does not see is therefore two misfortunes at once: a database damaged in what it wrote last, and either a power cut
//! in the 50 ms after that, or the slot with the newest mark damaged as well.
//!
//! Absent: when a mark is made (`pending`), and what to do about a store that falls short of it (`sled_store`).

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
/// The least that a disk writes at once, or more: a torn write of one slot leaves the other as it was.
const SLOT: usize = 4096;
/// Slots that are synced, in turn.
const SYNCED: usize = 2;
/// The slot of the newest mark.
const NEWEST: usize = SYNCED;
const SLOTS: usize = SYNCED + 1;
/// The file is synced no more often.
const EVERY: Duration = Duration::from_millis(50);

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
    /// The newest mark that was synced since it was opened, and when.
    synced: Option<(Mark, Instant)>,
    /// Where the next one that is synced goes.
    next: usize,
    /// The system may take for written what is not on the disk.
    pub(super) unsure: bool,
}

/// Where the mark of the store in this folder is.
pub(super) fn path(store: &Path) -> PathBuf {
    store.join(NAME)
}

impl MarkFile {
    /// Makes the file, or makes it anew, with this mark in all slots.
    pub(super) fn create(store: &Path, mark: Mark) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path(store))?;
        let mut bytes = [0; SLOTS * SLOT];
        for slot in bytes.chunks_exact_mut(SLOT) {
            slot[..WRITTEN].copy_from_slice(&mark.slot());
        }
        write_at(&file, &bytes, 0)?;
        file.sync_all()?;
        Ok(Self { file, newest: mark, synced: None, next: 0, unsure: false })
    }

    /// Opens the file; says what is wrong if nothing can be read of it.
    pub(super) fn open(store: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path(store))?;
        let slot = |i: usize| bytes.get(i * SLOT..).and_then(Mark::from_slot).map(|mark| (i, mark));
        let newest_of = |slots: usize| (0..slots).filter_map(slot).max_by_key(|(_, mark)| mark.sequence);
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "none of its marks is whole");
        let (_, newest) = newest_of(SLOTS).ok_or_else(damaged)?;
        let next = newest_of(SYNCED).map_or(0, |(place, _)| (place + 1) % SYNCED);
        let file = OpenOptions::new().write(true).open(path(store))?;
        Ok(Self { file, newest, synced: None, next, unsure: false })
    }

    /// What was acknowledged.
    pub(super) fn newest(&self) -> Mark {
        self.newest
    }

    /// Writes a mark that the database has on the disk, unless it is there already; syncs it if the last time was long ago.
    #[expect(clippy::disallowed_methods, reason = "how often the disk is asked; nothing is decided by it")]
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
        write_at(&self.file, &mark.slot(), (NEWEST * SLOT) as u64).map_err(told)?;
        self.newest = mark;
        Ok(())
    }

    /// Puts the newest mark on the disk.
    fn sync(&mut self) -> Result<(), StoreError> {
        write_at(&self.file, &self.newest.slot(), (self.next * SLOT) as u64).map_err(told)?;
        self.file.sync_data().inspect_err(|_| self.unsure = true).map_err(told)?;
        self.next = (self.next + 1) % SYNCED;
        Ok(())
    }
}

impl Drop for MarkFile {
    fn drop(&mut self) {
        if self.synced.is_some_and(|(mark, _)| mark != self.newest) {
            // An error changes nothing: the database is ahead of what is on the disk.
            let _ = self.sync();
        }
    }
}

fn told(error: io::Error) -> StoreError {
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

    /// A file whose synced slots hold these two, and its bytes.
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
    fn the_newest_of_all_marks_counts() {
        let (folder, bytes) = file(1, 2);
        let slots = |bytes: &[u8]| -> Vec<_> { bytes.chunks(SLOT).map(Mark::from_slot).collect() };
        assert_eq!(slots(&bytes), [1, 2, 2].map(|sequence| Some(mark(sequence))));
        let mut file = MarkFile::open(folder.path()).unwrap();
        assert_eq!(file.newest(), mark(2));
        for sequence in [7, 8, 9] {
            file.advance(mark(sequence)).unwrap();
        }
        // An older one changes nothing.
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
            // The next one is written to the last slot, then to the first.
            for slot in [NEWEST, 0] {
                torn_bytes[slot * SLOT..][..torn].copy_from_slice(&next[..torn]);
                assert_eq!(read(&folder, &torn_bytes).unwrap(), mark(9), "{torn} bytes of the next mark");
            }
        }
        // They are written over, so that whole ones follow.
        let mut file = MarkFile::open(folder.path()).unwrap();
        file.advance(mark(10)).unwrap();
        let bytes = std::fs::read(path(folder.path())).unwrap();
        assert_eq!([0, 1, 2].map(|i| Mark::from_slot(&bytes[i * SLOT..])), [10, 9, 10].map(|n| Some(mark(n))));
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_seen() {
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
