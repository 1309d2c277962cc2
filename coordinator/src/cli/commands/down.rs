//! The verb `down`: ends the workers of a search on a cluster, and the coordinator if asked.

use clap::Args;
use serde_json::json;

use super::launch_on::{Engine, SiteArgs, carry_out};
use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::SearchArg;

/// End the workers that a cluster runs for a search; its results stay
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache down nightly --on slurm --profile site.toml
  evocache down nightly --on slurm --all          the coordinator's job too

The search itself goes on waiting for workers until it is stopped with
`evocache stop`. The store is kept.")]
pub struct DownArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
    /// Engine that runs them
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub on: Engine,
    /// End the coordinator too; its store stays
    #[arg(long)]
    pub all: bool,
    /// The site.
    #[command(flatten)]
    pub site: SiteArgs,
}

/// Runs the verb.
pub async fn down(args: DownArgs, printer: Printer) -> Result<Exit, Failure> {
    let id = &args.search.id;
    match args.on {
        Engine::Slurm => {
            let slurm = args.site.slurm()?;
            let mut jobs = slurm.jobs(&slurm.list_workers(id).run().await?);
            if args.all {
                jobs.extend(slurm.jobs(&slurm.list_coordinator().run().await?));
            }
            if jobs.is_empty() {
                printer.note("there are no such jobs");
            } else {
                carry_out(&[slurm.cancel(&jobs)], printer).await?;
            }
        }
        Engine::Kubernetes => {
            let kubernetes = args.site.kubernetes()?;
            let step = if args.all { kubernetes.uninstall() } else { kubernetes.scale(0) };
            carry_out(&[step], printer).await?;
        }
    }
    printer
        .answer(|| json!({ "search_id": id.as_str(), "coordinator": !args.all }), || format!("no workers for {id}"))?;
    Ok(Exit::Ok)
}
