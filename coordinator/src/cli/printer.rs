//! The one place that writes to the terminal: data to stdout, talk to stderr.
//!
//! Colour only marks `error:`, `warning:` and `hint:`; everything reads the same without. Whatever the text, a terminal
//! shows it and does nothing else with it: here is where it is spelled out.

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
    /// Looks at what stderr is.
    #[expect(clippy::disallowed_methods, reason = "nothing is written")]
    pub fn new(json: bool, no_color: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { json, color: terminal && !no_color, terminal }
    }

    /// Whether the user wants JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stderr is a terminal, so that a line may be drawn again and again.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether stderr takes colours.
    pub fn has_color(&self) -> bool {
        self.color
    }

    /// Writes data to stdout, with a line end if it has none.
    #[expect(clippy::disallowed_methods, reason = "the place that is meant")]
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        match write!(out, "{}{end}", text::lines(text)).and_then(|()| out.flush()) {
            // Whoever reads has seen enough, as `head` does.
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

    /// Either the value as JSON or the text, as the user wants.
    pub fn answer(&self, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.json { self.json(&value()) } else { self.data(&text()) }
    }

    /// Says something to the person.
    pub fn note(&self, text: &str) {
        self.talk("", "", text);
    }

    /// Says that something is not as it should be.
    pub fn warning(&self, text: &str) {
        self.talk("33;1", "warning: ", text);
    }

    /// Says why the command failed, and the way out.
    pub fn failure(&self, failure: &Failure) {
        self.talk("31;1", "error: ", &failure.message);
        if let Some(hint) = &failure.hint {
            self.talk("36;1", "hint: ", hint);
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    #[expect(clippy::disallowed_methods, reason = "the place that is meant")]
    fn talk(&self, color: &str, mark: &str, text: &str) {
        // If stderr is gone there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{}{}", self.paint(color, mark), text::lines(text));
    }
}
