//! The verb `pause`: leases already granted run to their end.

use clap::Args;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::{SearchArg, changed};
use crate::client::Client;

/// Hand out no more candidates of a search until it is resumed
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
}

/// Runs the verb.
pub async fn pause(client: &Client, args: PauseArgs, printer: Printer) -> Result<Exit, Failure> {
    changed(&client.pause_search(&args.search.id).await?, printer)
}
