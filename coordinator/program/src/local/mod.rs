//! `evocache local`: coordinator, workers and results on this machine in one command.
//!
//! The coordinator runs in this process, on a loopback port and with a store on disk; each worker is a process of its
//! own that connects over gRPC, as from another machine. The search is created, followed and read through the client.
//!
//! **Invariant:** has no code path of its own for what `serve`, `evocache-worker`, `launch`, `front` and `best` do.

mod args;
mod bundled;
mod fleet;
mod settings;
mod setup;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use evocache::cli::kit::exit::{Exit, Failure};
use evocache::cli::kit::follow::{Followed, follow};
use evocache::cli::kit::printer::Printer;
use evocache::cli::kit::units::show_duration;
use evocache::cli::kit::view;
use evocache::cli::results::{self, Results};
use evocache::cli::spec::differences;
use evocache::client::{Client, ErrorKind, Search, SearchState};
use evocache::server::{self, Security, ServeOptions};
use evocache_net::signals;
use evocache_proto::domain::SearchId;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use fleet::{Fleet, WorkerSettings};
use setup::Plan;

pub(crate) use args::LocalArgs;
pub(crate) use fleet::{WorkerArgs, worker_process};

/// How long a worker may be silent. Workers on one machine seldom are, so this can be short, and a dead one is noticed
/// soon.
const LEASE_TTL: Duration = Duration::from_secs(30);

/// The most rows of the front's table.
const ROWS: usize = 20;

/// Runs the verb.
pub(crate) async fn run(args: LocalArgs, printer: Printer) -> Result<Exit, Failure> {
    let interrupted = signals::interruption().map_err(|e| Failure::new(format!("cannot listen for Ctrl-C: {e}")))?;
    let plan = setup::plan(&args)?;
    let coordinator = server::start(ServeOptions {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        reserve: 0,
        accept_loss: false,
        data: plan.store(),
        lease_ttl: LEASE_TTL,
        allow_remote_plaintext: false,
        http: None,
        security: Security::default(),
    })
    .await?;
    let url = coordinator.url();
    let outcome = session(&plan, &args, &url, printer, interrupted).await;
    let stopped = coordinator.shutdown().await;
    // A panic of the coordinator comes first: it is the cause of whatever went wrong in the session.
    stopped.map_err(|panic| Failure::new(&panic))?;
    outcome
}

async fn session(
    plan: &Plan,
    args: &LocalArgs,
    url: &str,
    printer: Printer,
    interrupted: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let client = Client::connect(url).await?;
    plan.warnings.iter().for_each(|text| printer.warning(text));
    let search = open_search(&client, plan, args).await?;
    let started = Instant::now();
    let before = search.progress.evaluations;
    if !search.state.is_final() {
        let settings = WorkerSettings::new(plan, args, url, search.spec.model.name.clone())?;
        printer.note(&format!(
            "search '{}' with model '{}': {} worker processes at the coordinator {url}, everything in {}",
            search.id,
            search.spec.model.name,
            settings.count,
            plan.out.display()
        ));
        let narrated = settings.clone();
        let mut fleet = Fleet::start(settings, client.clone())?;
        let followed = accompany(&client, &search, (&mut fleet, narrated), printer, interrupted).await;
        // In any case, the workers release their candidates before the coordinator stops.
        fleet.stop().await;
        match followed? {
            Followed::Interrupted => {
                // The results so far are written: they may be good enough.
                let results = Results::fetch(&client, &search.id).await?;
                if results.front.evaluations.is_empty() {
                    printer.note("no results yet");
                } else {
                    report(&results, plan, before, started.elapsed(), printer)?;
                }
                printer.note(&format!("interrupted; `evocache local --resume --out {}` goes on", plan.out.display()));
                return Ok(Exit::Interrupted);
            }
            Followed::Ended { state: SearchState::Failed, reason } => {
                return Err(Failure::new(format!("the search failed: {reason}"))
                    .hint(format!("the workers' logs are in {}", plan.out.display())));
            }
            Followed::Ended { .. } => {}
        }
    }
    let results = Results::fetch(&client, &search.id).await?;
    report(&results, plan, before, started.elapsed(), printer)
}

/// Follows the search while the workers are looked after.
async fn accompany(
    client: &Client,
    search: &Search,
    (fleet, settings): (&mut Fleet, WorkerSettings),
    printer: Printer,
    interrupted: impl Future<Output = ()>,
) -> Result<Followed, Failure> {
    let (sender, mut notes) = mpsc::unbounded_channel();
    let budget = search.spec.budget;
    tokio::select! {
        followed = follow(client, &search.id, budget, printer, false, &mut notes, interrupted) => followed,
        failure = fleet.supervise(sender.clone()) => Err(failure),
        failure = fleet::narrate(settings, client.clone(), search.id.clone(), sender) => Err(failure),
    }
}

/// The search in this folder: a new one, or the interrupted one.
async fn open_search(client: &Client, plan: &Plan, args: &LocalArgs) -> Result<Search, Failure> {
    let id = SearchId::new("local").map_err(Failure::new)?;
    let existing = match client.search(&id).await {
        Ok(search) => Some(search),
        Err(error) if error.kind() == Some(ErrorKind::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(search) = existing else {
        let spec = plan.spec.as_ref().ok_or_else(|| {
            Failure::usage(format!("the run in '{}' was interrupted before its search was created", plan.out.display()))
                .hint("pass its specification with --spec")
        })?;
        return Ok(client.create_search(Some(&id), spec).await?);
    };
    let mut found = match &plan.spec {
        Some(spec) if plan.is_given => differences(&search, spec),
        Some(_) | None => vec![],
    };
    if let Some(seed) = args.seed.filter(|&seed| seed != search.spec.seed && !plan.is_given) {
        found.push(format!("--seed: it has {}, not {seed}", search.spec.seed));
    }
    // Repeating the values that the search has is fine.
    let evaluations = search.spec.budget.evaluations;
    if let Some(budget) = args.budget.filter(|&budget| evaluations != Some(budget) && !plan.is_given) {
        let has = evaluations.map_or("none".to_owned(), |n| n.to_string());
        found.push(format!("--budget: it has {has}, not {budget}"));
    }
    if !found.is_empty() {
        return Err(settings::refused(&plan.out, &found));
    }
    match search.state {
        SearchState::Paused => Ok(client.resume_search(&id).await?),
        _ => Ok(search),
    }
}

fn report(results: &Results, plan: &Plan, before: u64, took: Duration, printer: Printer) -> Result<Exit, Failure> {
    let progress = &results.search.progress;
    if results.front.evaluations.is_empty() {
        let why = format!("no candidate could be evaluated: {}", results.search.end_reason);
        let out = plan.out.display();
        return Err(Failure::new(why.trim_end_matches(": ")).hint(format!(
            "the workers' logs are in {out}; once the cause is fixed, start a new search in another folder (--out), or delete this one"
        )));
    }
    let notes = results::write_folder(results, &plan.out)?;
    if progress.evaluations > before {
        printer.note(&format!("{} evaluations in {}", progress.evaluations - before, show_duration(took)));
    }
    printer.answer(
        || {
            let choices = results.choices.iter().map(|choice| {
                let answer = match &choice.answer {
                    Ok(best) => view::best(&results.search, best),
                    Err(nearest) => json!({ "none": nearest }),
                };
                (choice.key.to_owned(), json!({ "question": choice.question, "answer": answer }))
            });
            json!({
                "search": view::search(&results.search),
                "front": view::front(&results.search, &results.front),
                "choices": choices.collect::<serde_json::Map<_, _>>(),
                "out": plan.out,
            })
        },
        || {
            let answers: Vec<String> = results.choices.iter().map(results::Choice::describe).collect();
            format!("{}\n{}\n{}", results::front_table(results, ROWS), results.gain(), answers.join("\n"))
        },
    )?;
    for note in notes {
        printer.note(&note);
    }
    if let Some(warning) = results::noise(&results.evaluations) {
        printer.warning(&warning);
    }
    printer.note(&format!(
        "written to {}: front.json, front.svg, the chosen schedules (best-98, best-2x, knee), sheet.png",
        plan.out.display()
    ));
    Ok(Exit::Ok)
}
