//! The verb `launch`: creates a search from a specification file, or only checks the file.

use std::path::PathBuf;

use clap::Args;
use evocache_proto::domain::SearchId;
use serde_json::json;

use super::launch_on::{LaunchOnArgs, add_workers, script, start};
use super::watch::watch;
use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::global::Global;
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::waits;
use crate::cli::kit::{names, view};
use crate::cli::spec::{Specification, load};
use crate::client::{Client, SearchState};

/// Create a search from a specification file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache launch deploy/examples/emoji.toml
  evocache launch search.toml --id nightly --watch
  evocache launch more-steps.toml --start-from nightly  from another's front
  evocache launch search.toml --check                   only check the file
  evocache launch search.toml --on slurm --workers 16   on a cluster")]
pub struct LaunchArgs {
    /// Specification of the search (TOML)
    #[arg(value_name = "SPEC.toml")]
    pub spec: PathBuf,
    /// Id of the search [default: that of the file, or one that the coordinator makes]
    #[arg(long)]
    pub id: Option<SearchId>,
    /// Begin with the front of another search too; may be repeated [default: those of the file]
    #[arg(long, value_name = "SEARCH")]
    pub start_from: Vec<SearchId>,
    /// Follow the search until it ends
    #[arg(long, conflicts_with = "check")]
    pub watch: bool,
    /// Only check the specification: here, at the coordinator, and whether a live worker offers what it names
    #[arg(long)]
    pub check: bool,
    /// The cluster.
    #[command(flatten)]
    pub cluster: LaunchOnArgs,
}

/// Runs the verb. Connects after reading the file, so that a mistake in the file is reported without a coordinator.
pub async fn launch(global: &Global, args: LaunchArgs, printer: Printer) -> Result<Exit, Failure> {
    let mut specification = load(&args.spec)?;
    specification.warnings.iter().for_each(|text| printer.warning(text));
    specification.id = args.id.clone().or(specification.id);
    for other in &args.start_from {
        if !specification.start_from.contains(other) {
            specification.start_from.push(other.clone());
        }
    }
    if let (Some(engine), true) = (args.cluster.on, args.cluster.dry_run) {
        printer.data(&script(engine, &args.cluster, &args.spec, specification.id.as_ref().map(SearchId::as_str))?)?;
        return Ok(Exit::Ok);
    }
    if args.check {
        check(global, &args, &specification, printer).await
    } else {
        create(global, &args, &specification, printer).await
    }
}

async fn check(global: &Global, args: &LaunchArgs, file: &Specification, printer: Printer) -> Result<Exit, Failure> {
    let shown = args.spec.display();
    let client = global.connect().await.inspect_err(|_| {
        printer.note(&format!("{shown} is valid by itself; whether workers offer what it names was not checked"));
    })?;
    client.validate_search(file.id.as_ref(), &file.spec, &file.start_from).await?;
    let workers = client.workers().await?;
    let mut warnings = names::unknown(&file.spec, &workers);
    if !names::any_alive(&workers) {
        warnings.push("no worker is alive now, so its names of model and metrics cannot be checked".into());
    }
    warnings.iter().for_each(|text| printer.warning(text));
    printer.answer(|| json!({ "valid": true, "warnings": warnings }), || format!("{shown} is valid"))?;
    Ok(Exit::Ok)
}

async fn create(global: &Global, args: &LaunchArgs, file: &Specification, printer: Printer) -> Result<Exit, Failure> {
    let client: Client = match args.cluster.on {
        Some(engine) => start(global, engine, &args.cluster, printer).await?.connect().await?,
        None => global.connect().await?,
    };
    let search = client.create_search_from(file.id.as_ref(), &file.spec, &file.start_from).await?;
    // Not a reason to refuse the search: a worker that offers these names may come later.
    if search.state == SearchState::Pending
        && let Ok(workers) = client.workers().await
    {
        names::unknown(&file.spec, &workers).iter().for_each(|text| printer.warning(text));
    }
    if let Some(engine) = args.cluster.on {
        add_workers(engine, &args.cluster, search.id.as_str(), printer).await?;
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        launch: LaunchArgs,
    }

    #[test]
    fn a_search_starts_from_any_number_of_others() {
        let line = Line::try_parse_from("launch s.toml --start-from a --start-from b".split(' ')).unwrap();
        assert_eq!(line.launch.start_from.iter().map(SearchId::as_str).collect::<Vec<_>>(), ["a", "b"]);
    }
}
