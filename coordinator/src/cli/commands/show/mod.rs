//! The verb `show`: a search in detail, with what its operators and models contribute and what became of its imports.

mod imported;
mod insight;

use std::time::{Duration, SystemTime};

use clap::Args;
use evocache_proto::domain::Budget;
use evocache_proto::text::plain;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::{SearchArg, evaluations, waits};
use crate::cli::kit::units::{show_duration, show_percent};
use crate::cli::kit::view;
use crate::cli::results::describe_uncached;
use crate::client::{Client, Search, SearchState, rfc3339};

/// Show a search
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
}

/// Runs the verb.
pub async fn show(client: &Client, args: ShowArgs, printer: Printer) -> Result<Exit, Failure> {
    let search = client.search(&args.search.id).await?;
    let insight = search.insight.as_ref().map(insight::tables).unwrap_or_default();
    // All evaluations are fetched only where imported schedules are listed with theirs.
    let evaluations = match search.spec.imported.is_empty() {
        true => vec![],
        false => client.evaluations(&args.search.id, false).await?,
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
    let uncached = search.references.first().map(describe_uncached);
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

/// The limits of a budget other than the number of evaluations.
fn limits(budget: &Budget) -> Option<String> {
    let time = |time: Option<Duration>, of: &str| time.map(|time| format!("{} of {of}", show_duration(time)));
    let growth = budget.stagnation.map(|n| format!("{n} evaluations without growth"));
    let all = [time(budget.wall_time, "wall time"), time(budget.device_time, "device time"), growth];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}
