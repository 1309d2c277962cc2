//! How many records are done: drawn over on a terminal, written every few seconds elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use tokio::time::Instant;

use super::printer::Printer;

/// How often a line is written where none can be drawn over.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// A count on stderr.
pub struct Counter {
    printer: Printer,
    bar: Option<ProgressBar>,
    written: Instant,
}

impl Counter {
    /// Starts at nothing.
    pub fn new(printer: Printer) -> Self {
        let bar = (printer.is_terminal() && !printer.is_json())
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4)));
        Self { printer, bar, written: Instant::now() }
    }

    /// Shows the count; `doing` is a participle such as "read".
    pub fn show(&mut self, doing: &str, done: u64, of: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(of);
                bar.set_position(done);
            }
            None if self.written.elapsed() >= PLAIN_EVERY => {
                self.written = Instant::now();
                self.printer.note(&format!("{done}/{of} records {doing}"));
            }
            None => {}
        }
    }

    /// Clears the line.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
