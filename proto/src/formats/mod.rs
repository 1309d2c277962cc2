//! Schedules as JSON, in evocache's own format and in ECAD's. [`read`] recognizes the format.
//!
//! **Invariant:** knows nothing of files; the functions take and return text.

mod ecad;
mod own;

use crate::domain::{Grid, Schedule};
use crate::text::without_mark;

pub use ecad::{read as read_ecad, write as write_ecad};
pub use own::{read as read_own, write as write_own};

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
    fn field(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
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

/// Reads a schedule in either format.
pub fn read(text: &str) -> Result<Schedule, FormatError> {
    read_whole(text).map(|read| read.schedule)
}

/// Reads a schedule in either format, with what the file says about it.
pub fn read_whole(text: &str) -> Result<Read, FormatError> {
    let json: serde_json::Value =
        serde_json::from_str(without_mark(text)).map_err(|e| FormatError::Json(e.to_string()))?;
    if json.get("evocache_schedule").is_some() {
        let schedule = own::from_json(&json)?;
        let grid = own::grid(&json, schedule.steps())?;
        Ok(Read { schedule, made_with: own::made_with(&json), grid })
    } else if json.get("cache_schedule").is_some() {
        ecad::from_json(&json)
    } else {
        Err(FormatError::Unknown)
    }
}
