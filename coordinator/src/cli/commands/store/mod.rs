//! The verb `store`: checks, backs up, restores and compacts a store on disk.
//!
//! Does not do the work: that is [`crate::upkeep`].

mod checked;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::backup_file;
use crate::cli::kit::counter::Counter;
use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::units::show_bytes;
use crate::upkeep;

/// Work on a store while no coordinator runs on it: check, backup, restore, compact
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The verb.
    #[command(subcommand)]
    pub verb: StoreVerb,
}

/// The verbs of `store`.
#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    /// Read every record and rebuild the state, as a coordinator would
    #[command(after_help = "\
Example:
  evocache store check --data /var/lib/evocache

Exit code 1 if a record is damaged or an acknowledged one is missing. Damaged
records are named, missing ones counted.")]
    Check(DataArg),
    /// Write a store to one file, which ends with a digest
    #[command(after_help = "\
Examples:
  evocache store backup /mnt/backups                      named after the time
  evocache store backup evocache.backup --data ./store

`evocache backup` does the same while a coordinator runs on it.")]
    Backup(StoreBackupArgs),
    /// Make a store of a backup, in an empty folder
    #[command(after_help = "Example:\n  evocache store restore evocache.backup --data ./new-store")]
    Restore(StoreRestoreArgs),
    /// Rewrite a store, so that its files hold only its records
    #[command(after_help = "\
Example:
  evocache store compact --data /var/lib/evocache

Needs space for a second copy. The old store is kept beside it, with .old
appended to its name, until the new one is in place.")]
    Compact(DataArg),
}

/// A store by its folder.
#[derive(Debug, Args)]
pub struct DataArg {
    /// Folder of the store
    #[arg(long, value_name = "DIR", env = "EVOCACHE_DATA", default_value = "evocache-data")]
    pub data: PathBuf,
}

/// Arguments of `store backup`.
#[derive(Debug, Args)]
pub struct StoreBackupArgs {
    /// File to write, or a folder for it
    #[arg(value_name = "FILE_OR_DIR")]
    pub to: PathBuf,
    /// The store.
    #[command(flatten)]
    pub store: DataArg,
}

/// Arguments of `store restore`.
#[derive(Debug, Args)]
pub struct StoreRestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    /// The store.
    #[command(flatten)]
    pub store: DataArg,
}

/// Runs the verb. Nothing else runs in this process, so the calling thread may wait for the disk.
pub fn store(args: StoreArgs, printer: Printer) -> Result<Exit, Failure> {
    let mut counter = Counter::new(printer);
    match args.verb {
        StoreVerb::Check(DataArg { data }) => {
            let checked = upkeep::check(&data, &mut |done, of| counter.show("read", done, of))?;
            counter.finish();
            printer.answer(|| checked::view(&checked), || checked::text(&checked))?;
            if checked.is_sound() {
                return Ok(Exit::Ok);
            }
            let (found, data) = (checked.findings(), data.display());
            Err(Failure::new(format!("the store in '{data}' is damaged: {found} finding(s)")).hint(checked.hint()))
        }
        StoreVerb::Backup(args) => {
            let name = backup_file::name();
            let show = &mut |done, of| counter.show("written", done, of);
            let (path, summary) = upkeep::backup(&args.store.data, &args.to, &name, show)?;
            counter.finish();
            backup_file::written(&path, &summary, printer)
        }
        StoreVerb::Restore(args) => {
            let data = &args.store.data;
            let summary = upkeep::restore(&args.from, data, &mut |done, of| counter.show("restored", done, of))?;
            counter.finish();
            let value = || json!({ "data": data, "records": summary.records, "bytes": summary.bytes, "sha256": backup_file::hex(&summary) });
            printer.answer(value, || format!("{}: {}", data.display(), backup_file::describe(&summary)))?;
            Ok(Exit::Ok)
        }
        StoreVerb::Compact(DataArg { data }) => {
            printer.note(&format!("the old store is kept in '{}.old' until the new one is in place", data.display()));
            let done = upkeep::compact(&data, &mut |done, of| counter.show("copied", done, of))?;
            counter.finish();
            let value = || json!({ "data": data, "records": done.records, "bytes_before": done.before, "bytes_after": done.after });
            let text = || {
                let (before, after) = (show_bytes(done.before), show_bytes(done.after));
                format!("{}: {} records, {before} before, {after} now", data.display(), done.records)
            };
            printer.answer(value, text)?;
            Ok(Exit::Ok)
        }
    }
}
