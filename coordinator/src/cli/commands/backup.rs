//! The verb `backup`: backs up the store of a running coordinator to a file.
//!
//! Does not know what a backup holds, or how a file appears whole or not at all: that is [`crate::upkeep`].

use std::path::PathBuf;

use clap::Args;

use super::backup_file;
use crate::cli::kit::counter::Counter;
use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::client::Client;
use crate::upkeep::Unfinished;

/// Back up the store of a coordinator while it runs, to one file, which ends with a digest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache backup /mnt/backups              named after the time
  evocache backup evocache.backup --coordinator https://coordinator.lan:7447

The backup is of one moment; searches go on meanwhile. If the coordinator
requires tokens, this needs one of role admin. `evocache store restore` makes
a store of the file.")]
pub struct BackupArgs {
    /// File to write, or a folder for it
    #[arg(value_name = "FILE_OR_DIR")]
    pub to: PathBuf,
}

/// Runs the verb. Nothing else runs in this process, so the calling thread may wait for the disk.
pub async fn backup(client: &Client, args: BackupArgs, printer: Printer) -> Result<Exit, Failure> {
    let mut file = Unfinished::begin(&args.to, &backup_file::name())?;
    let mut counter = Counter::new(printer);
    let mut backup = client.back_up().await?;
    while let Some(piece) = backup.next().await? {
        file.write(&piece.bytes)?;
        counter.show("received", piece.done, piece.records);
    }
    let (path, summary) = file.finish_verified()?;
    counter.finish();
    backup_file::written(&path, &summary, printer)
}
