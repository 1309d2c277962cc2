//! The subcommands of the binary: [`run`], which works for a coordinator, and `generate`, `inspect`, `bench`, `blocks`,
//! `check` and `score`, which need none.
//!
//! Each is a struct of arguments with a method `run`, which writes data to the given writer (stdout) and returns errors
//! to `main`, which writes them to stderr with their hints.

mod bench;
mod blocks;
mod caller;
mod check;
mod denoising;
mod fit;
mod generate;
mod inspect;
pub mod metrics;
mod model;
mod parts;
mod pictures;
mod prompts;
pub mod run;
mod sampler;
mod score;
mod supervisor;
mod table;

use std::io::Write;
use std::path::Path;

use evocache_proto::domain::Layout;
use evocache_proto::{formats, text};

use crate::evaluator::api::EvaluateError;
use crate::executor::ExecuteError;
use crate::files::ModelError;

pub use bench::Bench;
pub use blocks::Blocks;
pub use check::Check;
pub use generate::Generate;
pub use inspect::Inspect;
pub use score::Score;

/// An error message with hints for the user.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    message: String,
    hints: Vec<String>,
}

impl CliError {
    /// An error without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new() }
    }

    /// Adds a hint: what the user can do about the error.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The hints.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl From<ModelError> for CliError {
    fn from(error: ModelError) -> Self {
        Self { message: error.to_string(), hints: error.hint().into_iter().collect() }
    }
}

impl From<EvaluateError> for CliError {
    fn from(error: EvaluateError) -> Self {
        Self { message: error.to_string(), hints: error.hint().map(str::to_owned).into_iter().collect() }
    }
}

impl From<ExecuteError> for CliError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Model(error) => error.into(),
            other => Self::new(other.to_string()),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::new(format!("cannot write the output: {error}"))
    }
}

/// The result of a subcommand.
pub type Result<T> = std::result::Result<T, CliError>;

/// Writes an error and its hints to stderr. Ignores a closed stderr.
#[expect(clippy::disallowed_methods, reason = "control characters in both lines are escaped")]
pub fn report(error: &CliError) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "error: {}", text::lines(&error.message));
    for hint in error.hints() {
        let _ = writeln!(stderr, "hint: {}", text::lines(hint));
    }
}

/// Reads a schedule file in evocache's or ECAD's format, with its metadata, and checks that it matches this layout.
fn read_schedule(path: &Path, layout: &Layout) -> Result<formats::Read> {
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
