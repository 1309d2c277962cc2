//! `evocache simulate`: a real coordinator over real gRPC, with workers that only wait. For planning a cluster, and for
//! measuring what the coordinator costs.
//!
//! The search, the leases, the store and the network are real; only the work of the GPUs is left out. The flags say how
//! long an evaluation takes and how often one fails or its worker dies.

mod coordinator;
mod crew;
mod dice;
mod idle;
mod measure;
mod plan;
mod report;

use std::sync::Arc;
use std::time::Duration;

use evocache_net::signals;
use tokio::sync::watch;
use tokio::time::Instant;

pub use plan::{SimulateArgs, TimeLaw};

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::progress::Live;
use crate::client::{Client, Search, SearchState};
use coordinator::{Own, Usage};
use crew::Crew;
use idle::{Idle, first_lease};
use plan::Plan;
use report::{Costs, Restarted};

/// How long the cost of idle workers is measured before the search.
const QUIET: Duration = Duration::from_secs(30);
/// How often the progress of the search is fetched.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the verb.
pub async fn run(args: SimulateArgs, printer: Printer) -> Result<Exit, Failure> {
    let interrupted = signals::interruption().map_err(|e| Failure::new(format!("cannot listen for Ctrl-C: {e}")))?;
    let plan = Arc::new(Plan::new(&args)?);
    let mut own = match &args.against {
        Some(_) => None,
        None => Some(Own::start(plan.lease_ttl).await?),
    };
    let url = match (&args.against, &own) {
        (Some(url), _) => url.clone(),
        (None, Some(own)) => own.url.clone(),
        (None, None) => return Err(Failure::new("no coordinator to simulate with")),
    };
    let client = Client::connect(&url).await?;
    let mut idle = Idle::start(&plan, &url).await?;
    let quiet = match &own {
        Some(own) if idle.len() > 0 => watch_idle(own, &mut idle).await?,
        Some(_) | None => None,
    };
    let search = client.create_search(None, &plan.spec).await?;
    let before = own.as_ref().map(Own::usage);
    let (stop, stopped) = watch::channel(false);
    let mut crew = Crew::start(&plan, &url, stopped).await?;
    let ended = tokio::select! {
        ended = follow(&client, &search, &plan, printer) => Some(ended?),
        lost = crew.lost() => return Err(lost),
        lost = idle.lost() => return Err(lost),
        () = interrupted => None,
    };
    let after = own.as_ref().map(Own::usage);
    if ended.is_none() {
        client.stop_search(&search.id).await?;
    }
    // Fails if all workers have already ended.
    let _ = stop.send(true);
    let tally = crew.join().await?;
    let usage = before.zip(after).and_then(|(before, after)| Usage::between(&before?, &after?));
    let store = own.as_ref().and_then(Own::store_bytes);
    let waiting = idle.len();
    drop(idle);
    let mut restarted = None;
    if args.restart && ended.is_some() {
        restarted = match own.take() {
            Some(killed) => {
                let (again, how) = restart(killed, &plan).await?;
                own = Some(again);
                Some(how)
            }
            None => None,
        };
    }
    if let Some(own) = own {
        own.stop().await;
    }
    let costs = Costs { usage, store, idle: quiet.map(|share| (waiting, share)), restarted };
    let figures = report::figures(&plan, tally, costs);
    printer.answer(|| report::view(&plan, &figures), || report::text(&plan, &figures))?;
    // A search may end before its budget; then the figures are of fewer evaluations than requested.
    if let Some(search) = ended.as_ref().filter(|s| s.state.is_final() && s.progress.evaluations < plan.evaluations) {
        printer.warning(&format!(
            "the search ended after {} of {} evaluations: {}",
            search.progress.evaluations, plan.evaluations, search.end_reason
        ));
    }
    match ended {
        None => Ok(Exit::Interrupted),
        Some(_) if args.restart => Ok(Exit::Ok),
        // Enough evaluations are made, whatever is still running.
        Some(search) if search.progress.evaluations >= plan.evaluations => Ok(Exit::Ok),
        Some(search) if search.state == SearchState::Completed => Ok(Exit::Ok),
        Some(search) => Err(Failure::new(format!("the search {}: {}", search.state.as_str(), search.end_reason))),
    }
}

/// The share of a core that the coordinator uses while all workers wait.
async fn watch_idle(own: &Own, idle: &mut Idle) -> Result<Option<f64>, Failure> {
    let before = own.usage();
    tokio::select! {
        () = tokio::time::sleep(QUIET) => {}
        lost = idle.lost() => return Err(lost),
    }
    let used = before.zip(own.usage()).and_then(|(before, after)| Usage::between(&before, &after));
    Ok(used.map(|used| used.cpu / QUIET.as_secs_f64()))
}

/// Kills the coordinator and starts it again.
async fn restart(own: Own, plan: &Plan) -> Result<(Own, Restarted), Failure> {
    let began = Instant::now();
    let own = own.restart().await?;
    let listening = began.elapsed();
    first_lease(plan, &own.url).await?;
    let memory = own.usage().map(|usage| usage.memory);
    Ok((own, Restarted { listening, first_lease: began.elapsed(), memory }))
}

/// Returns when the search has made its evaluations or has ended. Polls: a watch would make the coordinator send every
/// evaluation.
async fn follow(client: &Client, search: &Search, plan: &Plan, printer: Printer) -> Result<Search, Failure> {
    let mut live = Live::new(printer, plan.spec.budget);
    loop {
        let now = client.search(&search.id).await?;
        live.update(now.state, &now.progress);
        if now.state.is_final() || now.progress.evaluations >= plan.evaluations {
            live.finish();
            return Ok(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}
