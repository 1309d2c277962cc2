//! The verbs about searches: launch, list, show, watch, pause, resume, extend, stop, delete.

use std::io::{BufRead, IsTerminal};
use std::time::{Duration, SystemTime};

use evocache_proto::domain::{Budget, SearchId};
use evocache_proto::text::plain;
use serde_json::Value;

use super::args::{DeleteArgs, ExtendArgs, Global, LaunchArgs};
use super::exit::{Exit, Failure};
use super::follow::{Followed, until_end};
use super::printer::Printer;
use super::results;
use super::table::{Side, Table};
use super::units::{show_duration, show_percent};
use super::{connect, imported, insight, names, progress, spec, view};
use crate::client::{Client, Search, SearchState, rfc3339};

pub(super) async fn launch(global: &Global, args: LaunchArgs, printer: Printer) -> Result<Exit, Failure> {
    // The file first: a mistake in it is told without a coordinator.
    let spec::Specification { id, spec, mut start_from, told } = spec::load(&args.spec)?;
    told.iter().for_each(|text| printer.warning(text));
    let id = args.id.or(id);
    for other in args.start_from {
        if !start_from.contains(&other) {
            start_from.push(other);
        }
    }
    let client = connect(global).await.inspect_err(|_| {
        if args.check {
            printer.note(&format!(
                "{} is valid by itself; whether workers offer what it names is not known",
                args.spec.display()
            ));
        }
    })?;
    if args.check {
        client.validate_search(id.as_ref(), &spec, &start_from).await?;
        let workers = client.workers().await?;
        let mut warnings = names::unknown(&spec, &workers);
        if !names::anybody(&workers) {
            warnings.push(
                "no worker is alive now, so nobody knows whether its names of model and metrics are right".into(),
            );
        }
        warnings.iter().for_each(|text| printer.warning(text));
        printer.answer(
            || serde_json::json!({ "valid": true, "warnings": warnings }),
            || format!("{} is valid", args.spec.display()),
        )?;
        return Ok(Exit::Ok);
    }
    let search = client.create_search_from(id.as_ref(), &spec, &start_from).await?;
    // It may wait for workers that come later, so this is no reason to refuse it.
    if search.state == SearchState::Pending
        && let Ok(workers) = client.workers().await
    {
        names::unknown(&spec, &workers).iter().for_each(|text| printer.warning(text));
    }
    if args.watch {
        printer.note(&format!("search {} created", search.id));
        return watch(&client, &search.id, printer).await;
    }
    printer.answer(|| view::search(&search), || search.id.to_string())?;
    if search.state == SearchState::Pending {
        printer.note(&format!("{}; `evocache watch {}`", waits(&search), search.id));
    }
    Ok(Exit::Ok)
}

/// What a search waits for that has no worker yet, in the coordinator's words: workers may be there and not fit.
pub(super) fn waits(search: &Search) -> String {
    match search.end_reason.is_empty() {
        true => format!("waits for a worker with model '{}'", plain(&search.spec.model.name)),
        false => search.end_reason.to_string(),
    }
}

pub(super) async fn list(client: &Client, printer: Printer) -> Result<Exit, Failure> {
    let searches = client.searches().await?;
    if printer.is_json() {
        printer.json(&Value::Array(searches.iter().map(view::search).collect()))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&[
        ("search", Side::Left),
        ("state", Side::Left),
        ("evaluations", Side::Right),
        ("front", Side::Right),
        ("hypervolume", Side::Right),
        ("best at 98 %", Side::Right),
        ("model", Side::Left),
        ("created", Side::Left),
    ]);
    for search in &searches {
        let p = &search.progress;
        table.row([
            search.id.to_string(),
            search.state.as_str().to_owned(),
            evaluations(search),
            p.front_size.to_string(),
            format!("{:.4}", p.hypervolume),
            p.best_speedup.map_or("-".to_owned(), |x| format!("{x:.2}x")),
            search.spec.model.name.clone(),
            search.create_time.map_or("-".to_owned(), rfc3339),
        ]);
    }
    if table.is_empty() {
        printer.note("no searches; `evocache launch SPEC.toml` creates one");
    } else {
        printer.data(&table.render())?;
    }
    Ok(Exit::Ok)
}

fn evaluations(search: &Search) -> String {
    match search.spec.budget.evaluations {
        Some(budget) => format!("{}/{budget}", search.progress.used()),
        None => search.progress.used().to_string(),
    }
}

pub(super) async fn show(client: &Client, id: &SearchId, printer: Printer) -> Result<Exit, Failure> {
    let search = client.search(id).await?;
    let insight = search.insight.as_ref().map(insight::tables).unwrap_or_default();
    // Evaluations are asked for only where something is to be said of them.
    let evaluations = match search.spec.imported.is_empty() {
        true => vec![],
        false => client.evaluations(id, false).await?,
    };
    let imported = imported::table(&search, &evaluations);
    let value = || {
        let mut value = view::search(&search);
        value["imported_schedules"] = imported::json(&search, &evaluations);
        value
    };
    printer.answer(value, || format!("{}{insight}{imported}", facts(&search)))?;
    if search.state == SearchState::Pending {
        printer.note(&waits(&search));
    }
    Ok(Exit::Ok)
}

fn facts(search: &Search) -> String {
    let (spec, p) = (&search.spec, &search.progress);
    let time = |t: Option<SystemTime>| t.map(rfc3339);
    let speedup = |x: Option<f64>| x.map(|x| format!("{x:.2}x"));
    let objectives: Vec<String> = spec.objectives.iter().map(|o| o.metric.clone()).collect();
    let steps: Vec<String> = spec.sampling.steps.iter().map(u32::to_string).collect();
    let how = search.insight.as_ref();
    let made = if p.evaluations == p.used() { String::new() } else { format!("{} made, ", p.evaluations) };
    let uncached = search.references.first().map(results::describe_uncached);
    let lines: [(&str, Option<String>); 21] = [
        ("search", Some(search.id.to_string())),
        ("state", Some(search.state.as_str().to_owned())),
        ("reason", Some(search.end_reason.to_string()).filter(|r| !r.is_empty())),
        ("model", Some(spec.model.name.clone())),
        ("fingerprint", search.model.as_ref().map(|m| m.fingerprint.to_string())),
        ("layout", search.model.as_ref().map(|m| m.layout.to_string())),
        ("steps", Some(steps.join(", "))),
        ("objectives", Some(objectives.join(", "))),
        ("prompts", Some(spec.prompts.len().to_string())),
        ("created", time(search.create_time)),
        ("started", time(search.start_time)),
        ("ended", time(search.end_time)),
        ("evaluations", Some(format!("{} ({made}{} failed, {} running)", evaluations(search), p.failed, p.running))),
        ("limits", limits(&spec.budget)),
        ("front", Some(p.front_size.to_string())),
        ("hypervolume", Some(format!("{:.4} (seeds alone {:.4})", p.hypervolume, p.seeds_hypervolume))),
        ("best at 98 %", speedup(p.best_speedup)),
        ("device time", Some(show_duration(p.device_time))),
        ("uncached", uncached),
        ("latency noise", how.and_then(|h| h.latency_noise).map(|x| format!("{} per measurement", show_percent(x)))),
        ("profile", how.map(|h| if h.profiled { "measured" } else { "none" }.to_owned())),
    ];
    let line = |(name, value): (&str, Option<String>)| value.map(|value| format!("{name:<13} {}\n", plain(&value)));
    lines.into_iter().filter_map(line).collect()
}

/// What ends a search beside the number of evaluations.
fn limits(budget: &Budget) -> Option<String> {
    let time = |time: Option<Duration>, of: &str| time.map(|time| format!("{} of {of}", show_duration(time)));
    let growth = budget.stagnation.map(|n| format!("{n} evaluations without growth"));
    let all = [time(budget.wall_time, "wall time"), time(budget.device_time, "device time"), growth];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

pub(super) async fn watch(client: &Client, id: &SearchId, printer: Printer) -> Result<Exit, Failure> {
    let budget = client.search(id).await?.spec.budget;
    match until_end(client, id, budget, printer, true).await? {
        Followed::Interrupted => {
            printer.note(&format!("the search goes on; `evocache watch {id}` follows it again"));
            Ok(Exit::Interrupted)
        }
        Followed::Ended { state, reason } => {
            let told = reason.is_empty() || reason == *state.as_str();
            let because = if told { String::new() } else { format!(": {reason}") };
            printer.note(&format!("search {id} is {}{because}", state.as_str()));
            match state {
                SearchState::Failed => Ok(Exit::Failed),
                _ => Ok(Exit::Ok),
            }
        }
    }
}

fn changed(search: &Search, printer: Printer) -> Result<Exit, Failure> {
    printer.answer(|| view::search(search), || format!("{} {}", search.id, search.state.as_str()))?;
    Ok(Exit::Ok)
}

pub(super) async fn pause(client: &Client, id: &SearchId, printer: Printer) -> Result<Exit, Failure> {
    changed(&client.pause_search(id).await?, printer)
}

pub(super) async fn resume(client: &Client, id: &SearchId, printer: Printer) -> Result<Exit, Failure> {
    changed(&client.resume_search(id).await?, printer)
}

pub(super) async fn extend(client: &Client, args: ExtendArgs, printer: Printer) -> Result<Exit, Failure> {
    let budget = args.limits.budget();
    let search = client.extend_search(&args.id, &budget).await?;
    let line = || progress::line(search.state, &search.progress, &search.spec.budget);
    printer.answer(|| view::search(&search), || format!("{} {}: {}", search.id, search.state.as_str(), line()))?;
    Ok(Exit::Ok)
}

pub(super) async fn stop(client: &Client, id: &SearchId, printer: Printer) -> Result<Exit, Failure> {
    changed(&client.stop_search(id).await?, printer)
}

pub(super) async fn delete(global: &Global, args: DeleteArgs, printer: Printer) -> Result<Exit, Failure> {
    if !args.yes {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Err(Failure::usage("delete asks before it acts, and stdin is no terminal").hint("say --yes"));
        }
        printer.note(&format!("delete search {} with all its results? [y/N]", args.id));
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer).map_err(|e| Failure::new(format!("cannot read the answer: {e}")))?;
        if !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Err(Failure::new("not deleted"));
        }
    }
    connect(global).await?.delete_search(&args.id).await?;
    printer.answer(
        || serde_json::json!({ "search_id": args.id.as_str(), "deleted": true }),
        || format!("{} deleted", args.id),
    )?;
    Ok(Exit::Ok)
}
