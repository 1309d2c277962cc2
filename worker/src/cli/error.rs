//! Errors as people read them: a message and hints.

use std::io::Write;

use evocache_proto::text;

use crate::evaluator::api::EvaluateError;
use crate::executor::ExecuteError;
use crate::files::ModelError;

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
