//! Reads a record's value; every error names the record by its key.

use prost::Message;

use crate::ports::StoreError;

pub(in crate::store) fn decode<M: Message + Default>(key: &[u8], bytes: &[u8]) -> Result<M, StoreError> {
    M::decode(bytes).map_err(|e| corrupt(key, e))
}

/// A field without which the record cannot be used.
pub(super) fn required<T>(key: &[u8], field: &str, value: Option<T>) -> Result<T, StoreError> {
    value.ok_or_else(|| corrupt(key, format!("no {field}")))
}

pub(in crate::store) fn corrupt(key: &[u8], problem: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { key: key.escape_ascii().to_string(), problem: problem.to_string() }
}
