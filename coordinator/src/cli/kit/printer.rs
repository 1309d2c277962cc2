//! The only writer to the terminal: data to stdout, everything else to stderr.
//!
//! Color only marks `error:`, `warning:` and `hint:`; the text reads the same without it. Control characters are escaped
//! here, so that no text from outside acts on a terminal.

use std::io::{self, IsTerminal, Write};

use evocache_proto::text;
use serde_json::Value;

use super::exit::Failure;

/// Where and how to write.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    json: bool,
    color: bool,
    terminal: bool,
}

impl Printer {
    /// Finds out whether stderr is a terminal.
    #[expect(clippy::disallowed_methods, reason = "nothing is written")]
    pub fn new(json: bool, no_color: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { json, color: terminal && !no_color, terminal }
    }

    /// Whether answers are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stderr is a terminal, so that a line can be redrawn.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether stderr gets colors.
    pub fn has_color(&self) -> bool {
        self.color
    }

    /// Writes data to stdout, with a line end if it has none.
    #[expect(clippy::disallowed_methods, reason = "the one writer, which escapes control characters")]
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match write!(out, "{}{end}", text::lines(text)).and_then(|()| out.flush()) {
            // The reader has closed the pipe, as `head` does.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(Failure::new(format!("cannot write to stdout: {e}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a value as indented JSON.
    pub fn json(&self, value: &Value) -> Result<(), Failure> {
        self.data(&text::json(&format!("{value:#}")))
    }

    /// Writes a value as one line of JSON.
    pub fn json_line(&self, value: &Value) -> Result<(), Failure> {
        self.data(&text::json(&value.to_string()))
    }

    /// Writes the value if JSON is wanted, otherwise the text.
    pub fn answer(&self, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.json(&value()) } else { self.data(&text()) }
    }

    /// Writes a line to stderr.
    pub fn note(&self, text: &str) {
        self.talk("", "", text);
    }

    /// Writes a warning to stderr.
    pub fn warning(&self, text: &str) {
        self.talk("33;1", "warning: ", text);
    }

    /// Writes why the command failed, and the hint.
    pub fn failure(&self, failure: &Failure) {
        self.talk("31;1", "error: ", &failure.message);
        if let Some(hint) = &failure.hint {
            self.talk("36;1", "hint: ", hint);
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    #[expect(clippy::disallowed_methods, reason = "the one writer, which escapes control characters")]
    fn talk(&self, color: &str, mark: &str, text: &str) {
        // If stderr is closed, the text has no reader.
        let _ = writeln!(io::stderr().lock(), "{}{}", self.paint(color, mark), text::lines(text));
    }
}
