//! The verb `watch`: follows a search until it ends.

use clap::Args;
use evocache_proto::domain::SearchId;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::follow::{Followed, until_end};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::SearchArg;
use crate::client::{Client, SearchState};

/// Follow a search until it ends
#[derive(Debug, Args)]
#[command(after_help = "With --json each change is one line of JSON.")]
pub struct WatchArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
}

/// Runs the verb. The exit code is 1 if the search failed, 130 if Ctrl-C ended the watch.
pub async fn watch(client: &Client, id: &SearchId, printer: Printer) -> Result<Exit, Failure> {
    let budget = client.search(id).await?.spec.budget;
    match until_end(client, id, budget, printer, true).await? {
        Followed::Interrupted => {
            printer.note(&format!("the search goes on; `evocache watch {id}` follows it again"));
            Ok(Exit::Interrupted)
        }
        Followed::Ended { state, reason } => {
            let is_known = reason.is_empty() || reason == *state.as_str();
            let because = if is_known { String::new() } else { format!(": {reason}") };
            printer.note(&format!("search {id} is {}{because}", state.as_str()));
            match state {
                SearchState::Failed => Ok(Exit::Failed),
                _ => Ok(Exit::Ok),
            }
        }
    }
}
