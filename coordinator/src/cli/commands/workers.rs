//! The verb `workers`: the workers of a coordinator, and why some of them are idle or in quarantine.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::table::{Side, Table};
use crate::cli::kit::view;
use crate::client::{Client, WorkerState, rfc3339};

/// List the workers
#[derive(Debug, Args)]
pub struct WorkersArgs {
    /// Also list those that are gone: silent for long, and without a lease
    #[arg(long)]
    pub all: bool,
}

/// Runs the verb.
pub async fn workers(client: &Client, args: WorkersArgs, printer: Printer) -> Result<Exit, Failure> {
    let workers = client.workers().await?;
    if printer.is_json() {
        printer.json(&Value::Array(workers.iter().map(view::worker).collect()))?;
        return Ok(Exit::Ok);
    }
    let quarantined = workers.iter().filter(|worker| !worker.quarantine.is_empty());
    let mut notes: Vec<String> =
        quarantined.map(|w| format!("{} is in quarantine: {}", w.name, w.quarantine)).collect();
    // Grouped, because many workers share a reason.
    let mut idle: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for worker in workers.iter().filter(|worker| !worker.idle_reason.is_empty()) {
        idle.entry(worker.idle_reason.to_string()).or_default().push(worker.name.to_string());
    }
    notes.extend(idle.into_iter().map(|(why, names)| match &names[..] {
        [name] => format!("{name} is idle: {why}"),
        [name, more @ ..] => format!("{name} and {} more are idle: {why}", more.len()),
        [] => why,
    }));
    let gone = workers.iter().filter(|worker| worker.state == WorkerState::Gone).count();
    if gone > 0 && !args.all {
        notes.push(format!("{gone} gone; --all lists them too"));
    }
    let mut table = Table::new(&[
        ("worker", Side::Left),
        ("name", Side::Left),
        ("state", Side::Left),
        ("device", Side::Left),
        ("model", Side::Left),
        ("done", Side::Right),
        ("failed", Side::Right),
        ("evaluates", Side::Left),
        ("last seen", Side::Left),
    ]);
    for worker in workers.iter().filter(|worker| args.all || worker.state != WorkerState::Gone) {
        let leases: Vec<String> = worker.leases.iter().map(|l| format!("{}/{}", l.search_id, l.candidate)).collect();
        table.row([
            worker.id.to_string(),
            worker.name.to_string(),
            worker.state.as_str().to_owned(),
            worker.device.to_string(),
            worker.model.to_string(),
            worker.completed.to_string(),
            worker.failed.to_string(),
            if leases.is_empty() { "-".to_owned() } else { leases.join(" ") },
            worker.last_seen_time.map_or("-".to_owned(), rfc3339),
        ]);
    }
    if table.is_empty() {
        notes.iter().for_each(|note| printer.note(note));
        printer
            .note(&format!("no workers; `evocache-worker run --coordinator {} --model DIR` starts one", client.url()));
    } else {
        printer.data(&table.render())?;
        notes.iter().for_each(|note| printer.note(note));
    }
    Ok(Exit::Ok)
}
