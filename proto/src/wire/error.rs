//! The error of a message that is not a valid domain value.

use crate::domain::{Problem, Problems};

/// A message that is not a valid domain value: the field and the problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WireError(Problem);

impl WireError {
    /// A problem with a field.
    pub fn new(field: impl std::fmt::Display, problem: impl std::fmt::Display) -> Self {
        Self(Problem::new(field, problem))
    }

    /// Path of the field in the message, such as `spec.sampling`.
    pub fn field(&self) -> &str {
        &self.0.field
    }

    /// A required field that is missing.
    pub fn missing(field: impl std::fmt::Display) -> Self {
        Self::new(field, "is missing")
    }

    /// The same problem with its path seen from the enclosing message.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        Self(self.0.within(outer))
    }
}

impl From<WireError> for Problems {
    fn from(error: WireError) -> Self {
        error.0.into()
    }
}

/// Limits a count. Called before contents are copied or compared.
pub(super) fn at_most(field: &str, found: usize, most: usize) -> Result<(), WireError> {
    if found > most { Err(WireError::new(field, format_args!("at most {most}, found {found}"))) } else { Ok(()) }
}

pub(super) fn require<'a, T>(field: &str, value: Option<&'a T>) -> Result<&'a T, WireError> {
    value.ok_or_else(|| WireError::missing(field))
}

pub(super) fn duration(field: &str, value: &prost_types::Duration) -> Result<std::time::Duration, WireError> {
    std::time::Duration::try_from(*value).map_err(|_| WireError::new(field, "must be a non-negative duration"))
}
