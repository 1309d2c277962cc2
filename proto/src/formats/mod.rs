//! Schedules as JSON: evocache's own format, and ECAD's.
//!
//! [`read`] tells them apart. Absent on purpose: files; these functions take and give text.

mod ecad;
mod own;

use crate::domain::{Grid, Schedule};
use crate::text::without_mark;

pub use ecad::{read as read_ecad, write as write_ecad};
pub use own::{read as read_own, write as write_own};

/// Why a text is no schedule, or a schedule cannot be written in a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    Json(String),
    /// JSON, but neither of the known formats.
    #[error("neither an evocache schedule (key 'evocache_schedule') nor an ECAD schedule (key 'cache_schedule')")]
    Unknown,
    /// A field is missing or wrong.
    #[error("{field}: {problem}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
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

/// A schedule as a file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The schedule.
    pub schedule: Schedule,
    /// Settings that the file says it was made with, such as `guidance_scale` and `5.0`. They are not the schedule's:
    /// whoever runs it has their own.
    pub made_with: Vec<(String, String)>,
    /// How its runs sampled where it was measured, if that was not as the model's folder says.
    pub grid: Option<Grid>,
}

/// Reads a schedule in either format.
pub fn read(text: &str) -> Result<Schedule, FormatError> {
    read_whole(text).map(|read| read.schedule)
}

/// Reads a schedule in either format, with what the file says of it.
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
