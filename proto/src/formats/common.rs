//! What the formats share: their error, and a schedule with what its file says.

use crate::domain::{Grid, Schedule};

/// Why a text is not a schedule, or a schedule cannot be written in a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// JSON in neither format.
    #[error("neither an evocache schedule (key 'evocache_schedule') nor an ECAD schedule (key 'cache_schedule')")]
    Unknown,
    /// A field is missing or invalid.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// The format cannot express the schedule.
    #[error("{0}")]
    Inexpressible(String),
}

impl FormatError {
    pub(super) fn field(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Field { field: field.into(), problem: problem.to_string() }
    }
}

/// A schedule with what its file says about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The schedule.
    pub schedule: Schedule,
    /// Settings that the schedule was made with, according to the file, as names and values, such as `guidance_scale`
    /// and `5.0`. They do not apply by themselves when the schedule runs.
    pub made_with: Vec<(String, String)>,
    /// The grid that its runs sampled on when it was measured; `None`: that of the model folder.
    pub grid: Option<Grid>,
}
