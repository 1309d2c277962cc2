//! Large values in pieces.
//!
//! sled puts a value, or a page of values, that exceeds a quarter of a segment into a file of its own, which it never syncs
//! and whose absence it does not report: after a power cut, acknowledged records could be gone, and half of a batch could be
//! there. So no value is larger than [`PIECE`].
//!
//! | key | value |
//! |---|---|
//! | key | the value, if it is small |
//! | key | a head: 0, the number of pieces in four bytes, the hash of the whole value in sixteen |
//! | `~` key, hash, number in four bytes from 0 | a piece |
//!
//! Numbers are big-endian. No small value starts with 0: it is empty or a message, and no field's tag is 0.
//!
//! A head identifies the content of its pieces, so a store's tally counts heads only, and pieces are read and checked only
//! when their value is. Two values of the same key have pieces with different keys, so the pieces of a new value can be
//! written while the old one still counts. Pieces without a head are ignored.

use super::errors::of_sled;
use super::tally;
use crate::ports::StoreError;
use crate::store::codec::{corrupt, keys};

/// Bytes of the largest value. A leaf of sled's tree has 16 entries, and for a moment some more; a quarter of a segment is
/// 128 KiB.
pub(super) const PIECE: usize = 4096;
/// Bytes of the largest thumbnails record that is not split: a start skips these records, and larger ones would fill the
/// pages that it reads.
const THUMBNAILS_PIECE: usize = 64;

const SPLIT: u8 = 0;
/// First byte of a piece's key. It sorts after all kinds of records, so pieces share no page with what is written often.
const FURTHER: u8 = b'~';
const HASH: usize = 16;
const NUMBER: usize = 4;
const HEAD: usize = 1 + NUMBER + HASH;

/// The prefix of the pieces of all keys with this prefix.
pub(super) fn prefix(prefix: &[u8]) -> Vec<u8> {
    [&[FURTHER], prefix].concat()
}

/// The head of a large value.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Head {
    count: u32,
    hash: [u8; HASH],
}

impl Head {
    /// Reads a head; `None` if the value is small.
    fn read(key: &[u8], value: &[u8]) -> Result<Option<Self>, StoreError> {
        let [SPLIT, rest @ ..] = value else { return Ok(None) };
        let head = rest
            .split_first_chunk()
            .and_then(|(count, rest)| Some(Self { count: u32::from_be_bytes(*count), hash: rest.try_into().ok()? }));
        head.map(Some).ok_or_else(|| corrupt(key, "the head of a large value has a wrong length"))
    }

    fn key(&self, key: &[u8], number: u32) -> Vec<u8> {
        [&[FURTHER], key, &self.hash, &number.to_be_bytes()].concat()
    }
}

/// A value as it is written.
pub(super) struct Parts {
    /// The value or its head, under the value's key.
    pub(super) first: Vec<u8>,
    /// Keys and values of the pieces. Without their head they are ignored, so they may be written ahead of it.
    pub(super) further: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Splits a value if it is large.
pub(super) fn split(key: &[u8], value: Vec<u8>) -> Parts {
    let limit = if key.starts_with(&keys::all(keys::THUMBNAILS)) { THUMBNAILS_PIECE } else { PIECE };
    if value.len() <= limit {
        return Parts { first: value, further: vec![] };
    }
    let pieces = value.chunks(PIECE);
    let head = Head { count: u32::try_from(pieces.len()).unwrap_or(u32::MAX), hash: tally::hash(&value).to_be_bytes() };
    let further = (0..).zip(pieces).map(|(i, piece)| (head.key(key, i), piece.to_vec())).collect();
    let mut first = Vec::with_capacity(HEAD);
    first.push(SPLIT);
    first.extend(head.count.to_be_bytes());
    first.extend(head.hash);
    Parts { first, further }
}

/// The keys of a value's pieces; none if it is small.
pub(super) fn keys_of(key: &[u8], value: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
    let Some(head) = Head::read(key, value)? else { return Ok(vec![]) };
    Ok((0..head.count).map(|number| head.key(key, number)).collect())
}

/// The key of the record that has a piece with this key; `None` if it is not the key of a piece.
pub(super) fn record(key: &[u8]) -> Option<&[u8]> {
    let [FURTHER, rest @ ..] = key else { return None };
    rest.get(..rest.len().checked_sub(HASH + NUMBER)?)
}

/// Whether a piece of a record belongs to this value of it.
pub(super) fn belongs(key: &[u8], value: &[u8], piece: &[u8]) -> Result<bool, StoreError> {
    let Some(head) = Head::read(key, value)? else { return Ok(false) };
    let number = piece.len().saturating_sub(NUMBER);
    Ok(piece[..number].ends_with(&head.hash))
}

/// Returns the whole of a value that may be in pieces.
pub(super) fn whole(db: &sled::Db, key: &[u8], value: sled::IVec) -> Result<sled::IVec, StoreError> {
    whole_of(key, value, &|piece| db.get(piece).map_err(of_sled))
}

/// Returns what is stored under a key.
type Get<'a> = dyn Fn(&[u8]) -> Result<Option<sled::IVec>, StoreError> + 'a;

/// Returns the whole of a value whose pieces `get` reads.
pub(super) fn whole_of(key: &[u8], value: sled::IVec, get: &Get<'_>) -> Result<sled::IVec, StoreError> {
    let Some(head) = Head::read(key, &value)? else { return Ok(value) };
    let mut all = vec![];
    for number in 0..head.count {
        let piece = get(&head.key(key, number))?;
        let piece = piece.ok_or_else(|| corrupt(key, format!("piece {number} of {} is missing", head.count)))?;
        all.extend_from_slice(&piece);
    }
    if tally::hash(&all).to_be_bytes() != head.hash {
        return Err(corrupt(key, format!("its {} pieces differ from those that were written", head.count)));
    }
    Ok(all.into())
}
