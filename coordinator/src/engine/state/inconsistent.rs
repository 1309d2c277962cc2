//! The error of facts that contradict each other.

/// A fact does not fit the state: the store is damaged, or a decision was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Inconsistent(pub String);
