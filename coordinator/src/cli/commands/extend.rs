//! The verb `extend`: raises the budget of a search.

use std::time::Duration;

use clap::Args;
use evocache_proto::domain::Budget;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::SearchArg;
use crate::cli::kit::units::parse_duration;
use crate::cli::kit::{progress, view};
use crate::client::Client;

/// Raise the budget of a search; one that has completed runs on with all its results
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache extend my-search --evaluations 400
  evocache extend my-search --wall-time 8h --stagnation 200

Each limit is that of the whole search, including what it has used, and is
named as in a specification's [budget]. Other limits stay.")]
pub struct ExtendArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
    /// The limits to raise.
    #[command(flatten)]
    pub limits: BudgetArgs,
}

/// Limits of a budget.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct BudgetArgs {
    /// Evaluations in total
    #[arg(long, visible_alias = "budget", value_name = "N")]
    pub evaluations: Option<u64>,
    /// Time since its first worker, such as 8h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub wall_time: Option<Duration>,
    /// Time that devices are busy, in total
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub device_time: Option<Duration>,
    /// Evaluations in a row without growth of the hypervolume
    #[arg(long, value_name = "N")]
    pub stagnation: Option<u64>,
}

impl BudgetArgs {
    fn budget(&self) -> Budget {
        let Self { evaluations, wall_time, device_time, stagnation } = *self;
        Budget { evaluations, wall_time, device_time, stagnation }
    }
}

/// Runs the verb.
pub async fn extend(client: &Client, args: ExtendArgs, printer: Printer) -> Result<Exit, Failure> {
    let search = client.extend_search(&args.search.id, &args.limits.budget()).await?;
    let line = || progress::line(search.state, &search.progress, &search.spec.budget);
    printer.answer(|| view::search(&search), || format!("{} {}: {}", search.id, search.state.as_str(), line()))?;
    Ok(Exit::Ok)
}
