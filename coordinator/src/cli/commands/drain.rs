//! The verb `drain`: a worker finishes what it has and gets no more.

use clap::Args;
use evocache_proto::domain::WorkerId;
use evocache_proto::text::plain;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::{names, view};
use crate::client::{Client, Worker, WorkerState};

/// Let a worker finish what it has and give it no more
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Id of the worker, or its name if no other has it
    #[arg(value_name = "ID_OR_NAME")]
    pub worker: String,
}

/// Runs the verb.
pub async fn drain(client: &Client, args: DrainArgs, printer: Printer) -> Result<Exit, Failure> {
    let worker = client.drain_worker(&find(client, &args.worker).await?).await?;
    printer.answer(|| view::worker(&worker), || format!("{} {}", worker.id, worker.state.as_str()))?;
    if !worker.leases.is_empty() {
        printer.note("it finishes its current evaluations first");
    }
    Ok(Exit::Ok)
}

/// The worker with this id or name.
async fn find(client: &Client, called: &str) -> Result<WorkerId, Failure> {
    let workers = client.workers().await?;
    if let Some(worker) = workers.iter().find(|worker| worker.id.as_str() == called) {
        return Ok(worker.id.clone());
    }
    // A worker that has registered again is listed twice, and only one of the two entries gets work.
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
                .hint(format!("give one of their ids: {}", ids.join(", "))))
        }
    }
}
