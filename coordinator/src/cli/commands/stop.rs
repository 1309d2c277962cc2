//! The verb `stop`: ends a search before its budget is used up.

use clap::Args;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::{SearchArg, changed};
use crate::client::Client;

/// End a search for good; its results stay
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
}

/// Runs the verb.
pub async fn stop(client: &Client, args: StopArgs, printer: Printer) -> Result<Exit, Failure> {
    changed(&client.stop_search(&args.search.id).await?, printer)
}
