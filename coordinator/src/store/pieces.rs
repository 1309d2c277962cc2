//! Large values in pieces. sled puts what does not fit into a quarter of a segment, as a value or as the page that it is
//! on, into a file of its own, which it never syncs and without which it quietly goes on: after a power cut, what was
//! acknowledged could be gone, and half of a batch could be there. So no value is larger than [`PIECE`].
//!
//! | key | value |
//! |---|---|
//! | key | the value, if it is small |
//! | key | a head: 0, the number of pieces in four bytes, the hash of the whole value in sixteen |
//! | `~` key, hash, number in four bytes from 0 | a piece |
//!
//! No small value begins with 0: it is empty or a message, and 0 is no field's tag. Numbers are big-endian. A head says
//! what its pieces hold, so a store's tally counts heads only: pieces are checked when they are read, and need not be read
//! for anything else. Two values of a key have pieces of different keys, so those of the next can be written while the one
//! before still counts; pieces without a head are of no consequence.

use super::pending::Pending;
use super::sled_store::database;
use super::tally;
use crate::ports::StoreError;

/// The largest value. A leaf of sled's tree has 16 entries, and for a moment some more; a quarter of a segment is
/// 128 KiB.
pub(super) const PIECE: usize = 4096;
/// The largest value of a kind that is seldom read: more would be in the way of what is read at every start.
const ASIDE: usize = 64;

const SPLIT: u8 = 0;
/// After all kinds of records, so that pieces share no page with what is written often.
const FURTHER: u8 = b'~';
const HASH: usize = 16;
const NUMBER: usize = 4;
const HEAD: usize = 1 + NUMBER + HASH;

/// The prefix of the pieces of all keys with this prefix.
pub(super) fn further(prefix: &[u8]) -> Vec<u8> {
    [&[FURTHER], prefix].concat()
}

/// What the head of a large value says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Head {
    count: u32,
    hash: [u8; HASH],
}

impl Head {
    /// `None`: the value is small.
    fn read(key: &[u8], value: &[u8]) -> Result<Option<Self>, StoreError> {
        let [SPLIT, rest @ ..] = value else { return Ok(None) };
        let head = rest
            .split_first_chunk()
            .and_then(|(count, rest)| Some(Self { count: u32::from_be_bytes(*count), hash: rest.try_into().ok()? }));
        head.map(Some).ok_or_else(|| damaged(key, "the head of a large value has not its length"))
    }

    fn key(&self, key: &[u8], number: u32) -> Vec<u8> {
        [&[FURTHER], key, &self.hash, &number.to_be_bytes()].concat()
    }
}

fn damaged(key: &[u8], problem: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { key: key.escape_ascii().to_string(), problem: problem.to_string() }
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
    let limit = if key.starts_with(b"t/") { ASIDE } else { PIECE };
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

/// Removes the pieces of the value before, unless the new one (none: it is removed) is the same.
pub(super) fn trim(db: &sled::Db, pending: &mut Pending, key: &[u8], new: Option<&[u8]>) -> Result<(), StoreError> {
    let Some(before) = pending.get(db, key)? else { return Ok(()) };
    let Some(head) = Head::read(key, &before)?.filter(|_| new != Some(&before[..])) else { return Ok(()) };
    (0..head.count).for_each(|number| pending.remove_piece(head.key(key, number)));
    Ok(())
}

/// The record whose piece has this key; `None`: it is no piece's.
pub(super) fn record(key: &[u8]) -> Option<&[u8]> {
    let [FURTHER, rest @ ..] = key else { return None };
    rest.get(..rest.len().checked_sub(HASH + NUMBER)?)
}

/// Whether a piece is one of a record's with this value.
pub(super) fn belongs(key: &[u8], value: &[u8], piece: &[u8]) -> Result<bool, StoreError> {
    let Some(head) = Head::read(key, value)? else { return Ok(false) };
    let number = piece.len().saturating_sub(NUMBER);
    Ok(piece[..number].ends_with(&head.hash))
}

/// The whole of a value that may be in pieces.
pub(super) fn whole(db: &sled::Db, key: &[u8], value: sled::IVec) -> Result<sled::IVec, StoreError> {
    whole_of(key, value, &|piece| db.get(piece).map_err(database))
}

/// Gives what is stored under a key.
type Get<'a> = dyn Fn(&[u8]) -> Result<Option<sled::IVec>, StoreError> + 'a;

/// The same, with pieces from wherever they are.
pub(super) fn whole_of(key: &[u8], value: sled::IVec, get: &Get<'_>) -> Result<sled::IVec, StoreError> {
    let Some(head) = Head::read(key, &value)? else { return Ok(value) };
    let mut all = vec![];
    for number in 0..head.count {
        let piece = get(&head.key(key, number))?;
        let piece = piece.ok_or_else(|| damaged(key, format!("piece {number} of {} is missing", head.count)))?;
        all.extend_from_slice(&piece);
    }
    if tally::hash(&all).to_be_bytes() != head.hash {
        return Err(damaged(key, format!("its {} pieces are not those that were written", head.count)));
    }
    Ok(all.into())
}
