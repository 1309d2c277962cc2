//! Prompts from the lines of a file.

use std::path::Path;

use super::{CliError, Result};
use crate::files::text;

/// The lines of a file that are not blank, at least one.
pub(super) fn read(file: &Path) -> Result<Vec<String>> {
    let text = text::read(file).map_err(|e| CliError::new(format!("cannot read prompts '{}': {e}", file.display())))?;
    let prompts: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if prompts.is_empty() {
        return Err(CliError::new(format!("'{}' holds no prompts", file.display())).hint("write one a line"));
    }
    Ok(prompts)
}
