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

/// Writes a value, in pieces if it is large, and removes what is left over of the value before.
pub(super) fn insert(db: &sled::Db, batch: &mut sled::Batch, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
    remove_further(db, batch, &key)?;
    if value.len() <= PIECE {
        batch.insert(key, value);
        return Ok(());
    }
    let (first, rest) = value.split_at(PIECE - HEAD);
    let mut number = 0u32;
    for piece in rest.chunks(PIECE) {
        batch.insert(key_of(&key, number), piece);
        number += 1;
    }
    batch.insert(key, [&[SPLIT], &number.to_be_bytes()[..], first].concat());
    Ok(())
}

/// Removes a value with all its pieces.
pub(super) fn remove(db: &sled::Db, batch: &mut sled::Batch, key: Vec<u8>) -> Result<(), StoreError> {
    remove_further(db, batch, &key)?;
    batch.remove(key);
    Ok(())
}

fn remove_further(db: &sled::Db, batch: &mut sled::Batch, key: &[u8]) -> Result<(), StoreError> {
    let before = db.get(key).map_err(failed)?;
    for number in 0..before.map_or(0, |value| count(&value)) {
        batch.remove(key_of(key, number));
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
