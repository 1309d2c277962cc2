//! The verb `resume`: its candidates are handed out again.

use clap::Args;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::{SearchArg, changed};
use crate::client::Client;

/// Go on with a paused search
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
}

/// Runs the verb.
pub async fn resume(client: &Client, args: ResumeArgs, printer: Printer) -> Result<Exit, Failure> {
    changed(&client.resume_search(&args.search.id).await?, printer)
}
