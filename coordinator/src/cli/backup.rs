//! The verb `backup`: a backup of a coordinator that runs. Absent: what is in it, and files that are there whole or not at all
//! (`crate::upkeep`).

use super::args::BackupToArgs;
use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::store::{Counter, backup_name, written};
use crate::client::Client;
use crate::upkeep::Unfinished;

/// Nothing else runs in this process: the caller's thread may wait for the disk.
pub(super) async fn backup(client: &Client, args: BackupToArgs, printer: Printer) -> Result<Exit, Failure> {
    let mut file = Unfinished::begin(&args.to, &backup_name())?;
    let mut counter = Counter::new(printer);
    let mut backup = client.back_up().await?;
    while let Some(piece) = backup.next().await? {
        file.write(&piece.bytes)?;
        counter.show("received", piece.done, piece.records);
    }
    let (path, summary) = file.finish_verified()?;
    counter.finish();
    written(&path, &summary, printer)
}
