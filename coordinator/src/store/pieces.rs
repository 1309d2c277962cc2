//! Large values in pieces. sled puts what does not fit into a quarter of a segment, as a value or as the page that it is
//! on, into a file of its own, which it never syncs and without which it quietly goes on: after a power cut, what was
//! acknowledged could be gone, and half of a batch could be there. So no value is larger than [`PIECE`].
//!
//! | key | value |
//! |---|---|
//! | key | the value, if it is small |
//! | key | 0, the number of further pieces in four bytes, the first piece |
//! | `+` key, number in four bytes from 0 | a further piece |
//!
//! No small value begins with 0: it is empty or a message, and 0 is no field's tag. Numbers are big-endian.

use super::pending::Pending;
use super::sled_store::failed;
use crate::ports::StoreError;

/// The largest value. A leaf of sled's tree has 16 entries, and for a moment some more; a quarter of a segment is
/// 128 KiB.
pub(super) const PIECE: usize = 4096;

const SPLIT: u8 = 0;
const FURTHER: u8 = b'+';
const HEAD: usize = 5;

/// Whether a key is of a further piece.
pub(super) fn is_further(key: &[u8]) -> bool {
    key.first() == Some(&FURTHER)
}

/// The prefix of the further pieces of all keys with this prefix.
pub(super) fn further(prefix: &[u8]) -> Vec<u8> {
    [&[FURTHER], prefix].concat()
}

fn key_of(key: &[u8], number: u32) -> Vec<u8> {
    [&[FURTHER], key, &number.to_be_bytes()].concat()
}

/// How many further pieces this value has.
fn count(value: &[u8]) -> u32 {
    match value {
        [SPLIT, a, b, c, d, ..] => u32::from_be_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

/// A value as it is written.
pub(super) struct Parts {
    /// Under its own key.
    pub(super) first: Vec<u8>,
    /// Under keys of their own. Nobody sees them before the first is there, so they may be written ahead of it.
    pub(super) further: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Takes a value apart, if it is large.
pub(super) fn parts(key: &[u8], value: Vec<u8>) -> Parts {
    if value.len() <= PIECE {
        return Parts { first: value, further: vec![] };
    }
    let (first, rest) = value.split_at(PIECE - HEAD);
    let further: Vec<_> = (0u32..).zip(rest.chunks(PIECE)).map(|(i, piece)| (key_of(key, i), piece.to_vec())).collect();
    let count = u32::try_from(further.len()).unwrap_or(u32::MAX);
    Parts { first: [&[SPLIT], &count.to_be_bytes()[..], first].concat(), further }
}

/// Removes the pieces that the value before has and the new one has not.
pub(super) fn trim(db: &sled::Db, pending: &mut Pending, key: &[u8], new: &Parts) -> Result<(), StoreError> {
    remove_further(db, pending, key, count(&new.first))
}

/// Removes a value with all its pieces.
pub(super) fn remove(db: &sled::Db, pending: &mut Pending, key: Vec<u8>) -> Result<(), StoreError> {
    remove_further(db, pending, &key, 0)?;
    pending.remove(key);
    Ok(())
}

fn remove_further(db: &sled::Db, pending: &mut Pending, key: &[u8], from: u32) -> Result<(), StoreError> {
    let before = pending.get(db, key)?;
    for number in from..before.map_or(0, |value| count(&value)) {
        pending.remove(key_of(key, number));
    }
    Ok(())
}

/// The whole of a value that may be the first of its pieces.
pub(super) fn whole(db: &sled::Db, key: &[u8], value: sled::IVec) -> Result<sled::IVec, StoreError> {
    if value.first() != Some(&SPLIT) {
        return Ok(value);
    }
    let missing = |problem: String| StoreError::Corrupt { key: key.escape_ascii().to_string(), problem };
    let Some(first) = value.get(HEAD..) else { return Err(missing("the first of its pieces is cut off".into())) };
    let (mut all, pieces) = (first.to_vec(), count(&value));
    for number in 0..pieces {
        let piece = db.get(key_of(key, number)).map_err(failed)?;
        let piece = piece.ok_or_else(|| missing(format!("piece {number} of {pieces} is missing")))?;
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}
