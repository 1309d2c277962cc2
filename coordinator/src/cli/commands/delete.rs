//! The verb `delete`: deletes a search after asking for confirmation.

use std::io::{BufRead, IsTerminal};

use clap::Args;
use serde_json::json;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::global::Global;
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::SearchArg;

/// Delete a search that has ended, with all its results
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Runs the verb. Connects only after the confirmation, so that no connection waits for a person.
pub async fn delete(global: &Global, args: DeleteArgs, printer: Printer) -> Result<Exit, Failure> {
    let id = &args.search.id;
    if !args.yes {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::usage("cannot ask for confirmation: stdin is not a terminal").hint("pass --yes"));
        }
        printer.note(&format!("delete search {id} with all its results? [y/N]"));
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer).map_err(|e| Failure::new(format!("cannot read the answer: {e}")))?;
        if !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Err(Failure::new("not deleted"));
        }
    }
    global.connect().await?.delete_search(id).await?;
    printer.answer(|| json!({ "search_id": id.as_str(), "deleted": true }), || format!("{id} deleted"))?;
    Ok(Exit::Ok)
}
