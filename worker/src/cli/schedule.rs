//! Schedule files on the command line.

use std::path::Path;

use evocache_proto::domain::Layout;
use evocache_proto::formats;

use super::error::{CliError, Result};

/// Reads a schedule file in evocache's or ECAD's format, with its metadata, and checks that it matches this layout.
pub(super) fn read_schedule(path: &Path, layout: &Layout) -> Result<formats::Read> {
    let text = crate::files::text::read(path)
        .map_err(|e| CliError::new(format!("cannot read schedule '{}': {e}", path.display())))?;
    let read = formats::read_whole(&text)
        .map_err(|e| CliError::new(format!("'{}' is not a schedule: {e}", path.display())))?;
    let schedule = &read.schedule;
    if **schedule.layout() != *layout {
        return Err(CliError::new(format!(
            "schedule '{}' is for a model with layout {}, but this model has {layout}",
            path.display(),
            schedule.layout()
        ))
        .hint("use a schedule that was made for a model with the same blocks and components"));
    }
    Ok(read)
}
