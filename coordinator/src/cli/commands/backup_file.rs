//! The file of a backup: its name, and what is printed of it. `backup` and `store` share this.

use std::path::Path;

use serde_json::json;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::units::show_bytes;
use crate::client::rfc3339;
use crate::upkeep::{Summary, UpkeepError};

impl From<UpkeepError> for Failure {
    fn from(error: UpkeepError) -> Self {
        let failure = Self::new(&error);
        let failure = match &error {
            UpkeepError::NoFolder(_) | UpkeepError::Exists(_) | UpkeepError::NotEmpty(_) => failure.exit(Exit::Usage),
            _ => failure,
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// A file name from the current time, so that the backups in a folder sort by age.
#[expect(clippy::disallowed_methods, reason = "a name for people; nothing is replayed from it")]
pub(super) fn name() -> String {
    let now = rfc3339(std::time::SystemTime::now());
    let digits: String = now.chars().take_while(|&c| c != '.').filter(|c| c.is_ascii_alphanumeric()).collect();
    format!("evocache-{}Z.backup", digits.trim_end_matches('Z'))
}

/// Prints where a backup was written.
pub(super) fn written(path: &Path, summary: &Summary, printer: Printer) -> Result<Exit, Failure> {
    let value = || json!({ "file": path, "records": summary.records, "bytes": summary.bytes, "sha256": hex(summary) });
    printer.answer(value, || format!("{}: {}", path.display(), describe(summary)))?;
    Ok(Exit::Ok)
}

/// The digest in hexadecimal.
pub(super) fn hex(summary: &Summary) -> String {
    summary.digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Records, bytes and digest in one line.
pub(super) fn describe(summary: &Summary) -> String {
    format!("{} records, {}, SHA-256 {}", summary.records, show_bytes(summary.bytes), hex(summary))
}
