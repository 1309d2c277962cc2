//! Follows a search until it ends, with a progress line.

use std::future::Future;
use std::time::Duration;

use evocache_net::signals;
use evocache_proto::domain::{Budget, SearchId};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::exit::Failure;
use super::printer::Printer;
use super::progress::Live;
use super::view;
use crate::client::{Client, Foreign, SearchState, WatchEvent};

/// How following ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Followed {
    /// The search ended.
    Ended {
        /// The final state.
        state: SearchState,
        /// The reason; may be empty.
        reason: Foreign,
    },
    /// Ctrl-C or SIGTERM arrived first.
    Interrupted,
}

/// A message to show without breaking the progress line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A note.
    Note(String),
    /// A warning.
    Warning(String),
}

/// Follows a search until it ends or `interrupted` completes. With `--json` and `json_lines`, each change is a line on
/// stdout. Messages from `notes` are shown without breaking the progress line.
pub async fn follow(
    client: &Client,
    id: &SearchId,
    budget: Budget,
    printer: Printer,
    json_lines: bool,
    notes: &mut UnboundedReceiver<Message>,
    interrupted: impl Future<Output = ()>,
) -> Result<Followed, Failure> {
    let mut live = Live::new(printer, budget);
    let mut watch = client.watch(id);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tokio::pin!(interrupted);
    let mut lost = false;
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            () = &mut interrupted => {
                live.finish();
                return Ok(Followed::Interrupted);
            }
            Some(note) = notes.recv() => {
                match note {
                    Message::Note(text) => live.note(&text),
                    Message::Warning(text) => live.warning(&text),
                }
                continue;
            }
            _ = tick.tick() => {
                live.tick();
                continue;
            }
        };
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                live.finish();
                return Err(error.into());
            }
            None => return Err(Failure::new("the watch ended before the search did")),
        };
        if json_lines && printer.is_json() {
            printer.json_line(&view::watch_event(&event))?;
        }
        match event {
            WatchEvent::Reconnecting { problem, .. } => {
                if !lost {
                    live.warning(&format!("{problem}; trying again"));
                }
                lost = true;
            }
            WatchEvent::State { state, progress, end_reason, budget, .. } => {
                if lost {
                    live.note("connected again");
                    lost = false;
                }
                if let Some(budget) = budget {
                    live.limit(budget);
                }
                live.update(state, &progress);
                if state.is_final() {
                    live.finish();
                    return Ok(Followed::Ended { state, reason: end_reason });
                }
            }
        }
    }
}

/// Follows a search until it ends or Ctrl-C or SIGTERM arrives.
pub async fn until_end(
    client: &Client,
    id: &SearchId,
    budget: Budget,
    printer: Printer,
    json_lines: bool,
) -> Result<Followed, Failure> {
    let interrupted = signals::interruption().map_err(|e| Failure::new(format!("cannot listen for Ctrl-C: {e}")))?;
    let (_quiet, mut notes) = mpsc::unbounded_channel();
    follow(client, id, budget, printer, json_lines, &mut notes, interrupted).await
}
