//! What is wrong with a message.

/// A message that is no valid domain value: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct WireError {
    /// Path of the field in the message, such as `spec.sampling`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl WireError {
    /// A problem with a field.
    pub fn new(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }

    /// A field that must be there.
    pub fn missing(field: impl Into<String>) -> Self {
        Self::new(field, "is missing")
    }

    /// The same problem seen from the enclosing message.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

pub(super) fn require<'a, T>(field: &str, value: Option<&'a T>) -> Result<&'a T, WireError> {
    value.ok_or_else(|| WireError::missing(field))
}

pub(super) fn duration(field: &str, value: &prost_types::Duration) -> Result<std::time::Duration, WireError> {
    std::time::Duration::try_from(*value).map_err(|_| WireError::new(field, "must be a non-negative duration"))
}
