//! Reads prompts from a file, one per line.

use std::path::Path;

use super::{CliError, Result};
use crate::files::text;

/// The nonblank lines of a file, trimmed; at least one.
pub(super) fn read(file: &Path) -> Result<Vec<String>> {
    let text = text::read(file).map_err(|e| CliError::new(format!("cannot read prompts '{}': {e}", file.display())))?;
    let prompts: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if prompts.is_empty() {
        return Err(CliError::new(format!("'{}' has no prompts", file.display())).hint("write one prompt per line"));
    }
    Ok(prompts)
}
