//! The verbs about workers: workers, drain.

use std::collections::BTreeMap;

use evocache_proto::domain::WorkerId;
use evocache_proto::text::plain;
use serde_json::Value;

use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::table::{Side, Table};
use super::{names, view};
use crate::client::{Client, Worker, WorkerState, rfc3339};

pub(super) async fn workers(client: &Client, all: bool, printer: Printer) -> Result<Exit, Failure> {
    let workers = client.workers().await?;
    if printer.is_json() {
        printer.json(&Value::Array(workers.iter().map(view::worker).collect()))?;
        return Ok(Exit::Ok);
    }
    let quarantined = workers.iter().filter(|worker| !worker.quarantine.is_empty());
    let mut notes: Vec<String> =
        quarantined.map(|w| format!("{} is in quarantine: {}", w.name, w.quarantine)).collect();
    // Many have the same reason.
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
    if gone > 0 && !all {
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
    for worker in workers.iter().filter(|worker| all || worker.state != WorkerState::Gone) {
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

/// The worker that is called so.
async fn find(client: &Client, called: &str) -> Result<WorkerId, Failure> {
    let workers = client.workers().await?;
    if let Some(worker) = workers.iter().find(|worker| worker.id.as_str() == called) {
        return Ok(worker.id.clone());
    }
    // A worker that has registered again is there twice, and only one of the two gets work.
    let named: Vec<&Worker> = workers.iter().filter(|worker| worker.name == *called).collect();
    let alive: Vec<&Worker> = named.iter().copied().filter(|worker| worker.state == WorkerState::Alive).collect();
    match (named.as_slice(), alive.as_slice()) {
        ([only], _) | (_, [only]) => Ok(only.id.clone()),
        ([], _) => {
            let known = workers.iter().flat_map(|worker| [worker.id.as_str(), worker.name.raw()]);
            let meant = names::did_you_mean(called, known);
            Err(Failure::new(format!("no worker has the id or name '{}'{meant}", plain(called)))
                .hint("`evocache workers` shows the workers")
                .exit(Exit::NotFound))
        }
        (several, _) => {
            let ids: Vec<&str> = several.iter().map(|worker| worker.id.as_str()).collect();
            Err(Failure::usage(format!("{} workers have the name '{}'", several.len(), plain(called)))
                .hint(format!("say which: {}", ids.join(", "))))
        }
    }
}

pub(super) async fn drain(client: &Client, called: &str, printer: Printer) -> Result<Exit, Failure> {
    let worker = client.drain_worker(&find(client, called).await?).await?;
    printer.answer(|| view::worker(&worker), || format!("{} {}", worker.id, worker.state.as_str()))?;
    if !worker.leases.is_empty() {
        printer.note("it finishes what it has");
    }
    Ok(Exit::Ok)
}
