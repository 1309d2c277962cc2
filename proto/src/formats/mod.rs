//! Schedules as JSON, in evocache's own format and in ECAD's. [`read`] recognizes the format.
//!
//! **Invariant:** knows nothing of files; the functions take and return text.

mod common;
mod ecad;
mod own;

use crate::domain::Schedule;
use crate::text::without_mark;

pub use common::{FormatError, Read};
pub use ecad::{read as read_ecad, write as write_ecad};
pub use own::{read as read_own, write as write_own};

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
