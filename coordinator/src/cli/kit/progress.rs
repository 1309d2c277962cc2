//! The progress of a search in one line: redrawn on a terminal, written every few seconds elsewhere.

use std::time::Duration;

use evocache_proto::domain::Budget;
use evocache_proto::text::plain;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::printer::Printer;
use super::units::show_duration;
use crate::client::{Progress, SearchState};

/// How often the line is written where it cannot be redrawn.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// A progress line on stderr.
#[derive(Debug)]
pub struct Live {
    printer: Printer,
    budget: Budget,
    bar: Option<ProgressBar>,
    line: String,
    written: String,
    last: Option<Instant>,
}

impl Live {
    /// A line for a search with this budget.
    pub fn new(printer: Printer, budget: Budget) -> Self {
        let length = length(&budget);
        let bar = (printer.is_terminal() && !printer.is_json()).then(|| {
            let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr_with_hz(4));
            let color = if printer.has_color() { ".cyan" } else { "" };
            let template = match length {
                Some(_) => format!("{{bar:24{color}}} {{wide_msg}}"),
                None => "{spinner} {wide_msg}".to_owned(),
            };
            bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { printer, budget, bar, line: String::new(), written: String::new(), last: None }
    }

    /// Sets the budget, which may have been extended.
    pub fn limit(&mut self, budget: Budget) {
        if let (Some(bar), Some(length)) = (&self.bar, length(&budget)) {
            bar.set_length(length);
        }
        self.budget = budget;
    }

    /// Shows the current state.
    pub fn update(&mut self, state: SearchState, progress: &Progress) {
        self.line = line(state, progress, &self.budget);
        match &self.bar {
            Some(bar) => {
                bar.set_position(position(progress, &self.budget));
                bar.set_message(plain(&self.line).into_owned());
            }
            None => self.tick(),
        }
    }

    /// Call this regularly: writes the line where none is drawn, if it has changed and the last one is old enough.
    pub fn tick(&mut self) {
        let due = self.last.is_none_or(|last| last.elapsed() >= PLAIN_EVERY);
        if self.bar.is_none() && due && self.line != self.written {
            self.write();
        }
    }

    /// Writes a note without breaking the line.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.note(text)),
            None => self.printer.note(text),
        }
    }

    /// Writes a warning without breaking the line.
    pub fn warning(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.warning(text)),
            None => self.printer.warning(text),
        }
    }

    /// Leaves the last state on the screen.
    pub fn finish(mut self) {
        match self.bar.take() {
            Some(bar) => {
                bar.finish_and_clear();
                self.printer.note(&self.line);
            }
            None if self.line != self.written => self.write(),
            None => {}
        }
    }

    fn write(&mut self) {
        if !self.printer.is_json() {
            self.printer.note(&self.line);
        }
        self.written.clone_from(&self.line);
        self.last = Some(Instant::now());
    }
}

/// Length of the bar: in evaluations, or in milliseconds where only device time is limited.
fn length(budget: &Budget) -> Option<u64> {
    budget.evaluations.or(budget.device_time.map(|time| time.as_millis() as u64))
}

fn position(progress: &Progress, budget: &Budget) -> u64 {
    match budget.evaluations {
        Some(_) => progress.used(),
        None => progress.device_time.as_millis() as u64,
    }
}

/// The state in one line.
pub fn line(state: SearchState, p: &Progress, budget: &Budget) -> String {
    let mut parts = vec![match budget.evaluations {
        Some(budget) => format!("{}/{budget} evaluations", p.used()),
        None => format!("{} evaluations", p.used()),
    }];
    if let Some(most) = budget.device_time {
        parts.push(format!("{}/{} of device time", show_duration(p.device_time), show_duration(most)));
    }
    if p.failed > 0 {
        parts.push(format!("{} failed", p.failed));
    }
    match state {
        SearchState::Pending => parts.push("waiting for a worker".into()),
        SearchState::Running => {}
        other => parts.push(other.as_str().into()),
    }
    if p.evaluations > 0 {
        parts.push(format!("front {}", p.front_size));
        parts.push(format!("hypervolume {:.4}", p.hypervolume));
    }
    if let Some(speedup) = p.best_speedup {
        parts.push(format!("{speedup:.2}x at >= 98 % quality"));
    }
    if let (Some(left), false) = (p.remaining, state.is_final()) {
        parts.push(format!("{} left", show_duration(left)));
    }
    parts.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_progress_front_and_remaining_time() {
        let progress = Progress {
            evaluations: 31,
            spent: 12.75,
            front_size: 5,
            hypervolume: 0.51234,
            best_speedup: Some(2.345),
            remaining: Some(Duration::from_secs(75)),
            ..Progress::default()
        };
        let evaluations = Budget { evaluations: Some(40), ..Budget::default() };
        assert_eq!(
            line(SearchState::Running, &progress, &evaluations),
            "12/40 evaluations | front 5 | hypervolume 0.5123 | 2.35x at >= 98 % quality | 1m15s left"
        );
        let none = Budget::default();
        assert_eq!(line(SearchState::Pending, &Progress::default(), &none), "0 evaluations | waiting for a worker");
        assert!(line(SearchState::Completed, &progress, &none).contains("completed"));
        let time = Budget { device_time: Some(Duration::from_secs(600)), ..none };
        let busy = Progress { device_time: Duration::from_secs(75), ..Progress::default() };
        assert_eq!(line(SearchState::Running, &busy, &time), "0 evaluations | 1m15s/10m00s of device time");
        assert_eq!((length(&time), position(&busy, &time)), (Some(600_000), 75_000));
        assert_eq!((length(&evaluations), position(&progress, &evaluations)), (Some(40), 12));
    }
}
