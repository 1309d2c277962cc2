//! What the codec needs of a medium: records by key. sled and the in-memory store both provide it, so they differ in
//! nothing else.

use crate::ports::{Fact, StoreError};

/// What a fact does to the records.
pub(super) enum Write {
    /// Writes a record whose key is free: never written before, or removed since.
    New(Vec<u8>, Vec<u8>),
    /// Writes a record that may replace another.
    Put(Vec<u8>, Vec<u8>),
    /// Removes the record with this key, if there is one.
    Remove(Vec<u8>),
}

/// Takes a record's key and value.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// Takes a fact that records hold.
pub(super) type Tell<'a> = dyn FnMut(Fact) + 'a;

/// Records in the order of their keys.
pub(super) trait Medium {
    /// Visits every record whose key starts with `prefix`.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError>;
    /// Returns the value of a record.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Skips records that a replay does not need; a medium that adds up everything it reads still counts them.
    fn skip(&self, prefix: &[u8]) -> Result<(), StoreError>;
}
