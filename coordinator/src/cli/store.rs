//! The verb that looks after a store on disk: its shape on the command line, and what it tells.
//!
//! Absent: what is done; that is `crate::upkeep`'s.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;
use tokio::time::Instant;

use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::table::{Side, Table};
use super::units::show_bytes;
use crate::client::rfc3339;
use crate::upkeep::{self, Checked, Summary, UpkeepError};

/// Where a progress line cannot be drawn over, one is written this often.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Arguments of `store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub verb: StoreVerb,
}

/// What to do with a store.
#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    /// Read every record and rebuild the state, as a coordinator would
    #[command(after_help = "\
Example:
  evocache store check --data /var/lib/evocache

Exit code 1 if a record is damaged or something acknowledged is missing. Damaged
records are named, missing ones counted.")]
    Check(DataArg),
    /// Write a store to one file, which ends with a digest
    #[command(after_help = "\
Examples:
  evocache store backup /mnt/backups                      named after the moment
  evocache store backup evocache.backup --data ./store

`evocache backup` does so while a coordinator runs on it.")]
    Backup(BackupArgs),
    /// Make a store of a backup, in an empty folder
    #[command(after_help = "Example:\n  evocache store restore evocache.backup --data ./new-store")]
    Restore(RestoreArgs),
    /// Rewrite a store, so that its files hold nothing but what is in it
    #[command(after_help = "\
Example:
  evocache store compact --data /var/lib/evocache

Needs room for the store a second time. The old one is kept beside it, with
.old at its name, until the new one is in its place.")]
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
pub struct BackupArgs {
    /// File to write, or a folder for it
    #[arg(value_name = "FILE_OR_DIR")]
    pub to: PathBuf,
    /// The store.
    #[command(flatten)]
    pub store: DataArg,
}

/// Arguments of `store restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    /// The store.
    #[command(flatten)]
    pub store: DataArg,
}

impl From<UpkeepError> for Failure {
    fn from(error: UpkeepError) -> Self {
        let failure = Self::new(&error);
        let failure = match &error {
            UpkeepError::NoFolder(_) | UpkeepError::Exists(_) | UpkeepError::NotEmpty(_) => failure.exit(Exit::Usage),
            _ => failure,
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Nothing else runs in this process: the caller's thread may wait for the disk.
pub(super) fn run(verb: StoreVerb, printer: Printer) -> Result<Exit, Failure> {
    let mut counter = Counter::new(printer);
    match verb {
        StoreVerb::Check(DataArg { data }) => {
            let checked = upkeep::check(&data, &mut |done, of| counter.show("read", done, of))?;
            counter.finish();
            printer.answer(|| view(&checked), || text(&checked))?;
            if checked.is_sound() {
                return Ok(Exit::Ok);
            }
            let (found, data) = (checked.findings(), data.display());
            Err(Failure::new(format!("the store in '{data}' is damaged: {found} finding(s)")).hint(checked.hint()))
        }
        StoreVerb::Backup(args) => {
            let name = backup_name();
            let show = &mut |done, of| counter.show("written", done, of);
            let (path, summary) = upkeep::backup(&args.store.data, &args.to, &name, show)?;
            counter.finish();
            written(&path, &summary, printer)
        }
        StoreVerb::Restore(args) => {
            let data = &args.store.data;
            let summary = upkeep::restore(&args.from, data, &mut |done, of| counter.show("restored", done, of))?;
            counter.finish();
            let value =
                || json!({ "data": data, "records": summary.records, "bytes": summary.bytes, "sha256": hex(&summary) });
            printer.answer(value, || format!("{}: {}", data.display(), told(&summary)))?;
            Ok(Exit::Ok)
        }
        StoreVerb::Compact(DataArg { data }) => {
            printer
                .note(&format!("the old store is kept in '{}.old' until the new one is in its place", data.display()));
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

/// Tells of a backup that was written.
pub(super) fn written(path: &Path, summary: &Summary, printer: Printer) -> Result<Exit, Failure> {
    let value = || json!({ "file": path, "records": summary.records, "bytes": summary.bytes, "sha256": hex(summary) });
    printer.answer(value, || format!("{}: {}", path.display(), told(summary)))?;
    Ok(Exit::Ok)
}

fn hex(summary: &Summary) -> String {
    summary.digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn told(summary: &Summary) -> String {
    format!("{} records, {}, SHA-256 {}", summary.records, show_bytes(summary.bytes), hex(summary))
}

/// Named after the moment, so that backups of a folder sort by age.
#[expect(clippy::disallowed_methods, reason = "a name for people; nothing is replayed from it")]
pub(super) fn backup_name() -> String {
    let now = rfc3339(std::time::SystemTime::now());
    let digits: String = now.chars().take_while(|&c| c != '.').filter(|c| c.is_ascii_alphanumeric()).collect();
    format!("evocache-{}Z.backup", digits.trim_end_matches('Z'))
}

fn view(checked: &Checked) -> serde_json::Value {
    let searches = checked.searches.iter().map(|s| {
        json!({ "id": s.id, "state": s.phase, "candidates": s.candidates, "evaluations": s.evaluations,
            "failed": s.failed, "front": s.front })
    });
    let kinds: serde_json::Map<String, serde_json::Value> =
        checked.kinds.iter().map(|(name, count)| (name.replace(' ', "_"), json!(count))).collect();
    json!({
        "sound": checked.is_sound(),
        "format": checked.format,
        "records": kinds,
        "bytes": checked.bytes,
        "bytes_on_disk": checked.on_disk,
        "searches": searches.collect::<Vec<_>>(),
        "damages": checked.damages,
        "damaged": checked.damaged.iter().map(|d| json!({ "key": d.key, "problem": d.problem })).collect::<Vec<_>>(),
        "contradiction": checked.contradiction,
        "lost": checked.lost,
    })
}

fn text(checked: &Checked) -> String {
    let mut kinds = Table::new(&[("records", Side::Left), ("n", Side::Right)]);
    for (name, count) in checked.kinds.iter().filter(|(_, count)| *count > 0) {
        kinds.row([(*name).to_owned(), count.to_string()]);
    }
    let mut text = format!(
        "format {}, {} records of {}, {} on disk\n",
        checked.format,
        checked.records(),
        show_bytes(checked.bytes),
        show_bytes(checked.on_disk)
    );
    if !kinds.is_empty() {
        text.push_str(&kinds.render());
    }
    let mut searches = Table::new(&[
        ("search", Side::Left),
        ("state", Side::Left),
        ("candidates", Side::Right),
        ("evaluations", Side::Right),
        ("failed", Side::Right),
        ("front", Side::Right),
    ]);
    for s in &checked.searches {
        let figures = [s.candidates, s.evaluations, s.failed, s.front];
        searches.row([s.id.clone(), s.phase.clone()].into_iter().chain(figures.map(|n| n.to_string())));
    }
    if !searches.is_empty() {
        text.push_str(&searches.render());
    }
    for damage in &checked.damaged {
        text.push_str(&format!("damaged: {}: {}\n", damage.key, damage.problem));
    }
    let more = checked.damages.saturating_sub(checked.damaged.len() as u64);
    if more > 0 {
        text.push_str(&format!("damaged: {more} more\n"));
    }
    if let Some(contradiction) = &checked.contradiction {
        text.push_str(&format!("contradiction: {contradiction}\n"));
    }
    if let Some(lost) = &checked.lost {
        text.push_str(&format!("lost: {lost}\n"));
    }
    if checked.is_sound() {
        text.push_str("sound\n");
    }
    text
}

/// How many records are done: drawn on a terminal, written now and then elsewhere.
pub(super) struct Counter {
    printer: Printer,
    bar: Option<ProgressBar>,
    written: Instant,
}

impl Counter {
    pub(super) fn new(printer: Printer) -> Self {
        let bar = (printer.is_terminal() && !printer.is_json())
            .then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4)));
        Self { printer, bar, written: Instant::now() }
    }

    pub(super) fn show(&mut self, doing: &str, done: u64, of: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(of);
                bar.set_position(done);
            }
            None if self.written.elapsed() >= PLAIN_EVERY => {
                self.written = Instant::now();
                self.printer.note(&format!("{done}/{of} records {doing}"));
            }
            None => {}
        }
    }

    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
