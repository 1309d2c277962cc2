//! The verb `scale`: adds workers of a search on a cluster, or takes some away.

use clap::Args;
use serde_json::json;

use super::launch_on::{Engine, SiteArgs, carry_out};
use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::search::SearchArg;

/// Change the number of workers that a cluster runs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache scale nightly --on slurm --workers 32 --profile site.toml
  evocache scale nightly --on kubernetes --workers 0

On Slurm these are the tasks that were submitted for the search; workers that go
give their candidates back. On Kubernetes they are those of the release.")]
pub struct ScaleArgs {
    /// The search.
    #[command(flatten)]
    pub search: SearchArg,
    /// Engine that runs them
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub on: Engine,
    /// Number of workers from now on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub workers: u32,
    /// GPUs of each worker that is added; 0 for workers on the CPU
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub gpus_per_worker: u32,
    /// The site.
    #[command(flatten)]
    pub site: SiteArgs,
}

/// Runs the verb.
pub async fn scale(args: ScaleArgs, printer: Printer) -> Result<Exit, Failure> {
    let id = &args.search.id;
    let before = match args.on {
        Engine::Slurm => {
            let slurm = args.site.slurm()?;
            let mut jobs = slurm.jobs(&slurm.list_workers(id).run().await?);
            let before = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
            let step = match args.workers.checked_sub(before) {
                Some(0) => None,
                Some(more) => Some(slurm.add(id.as_str(), more, args.gpus_per_worker)),
                // Those that came last go first.
                None => Some(slurm.cancel(&jobs.split_off(args.workers as usize))),
            };
            carry_out(step.as_slice(), printer).await?;
            Some(before)
        }
        Engine::Kubernetes => {
            carry_out(&[args.site.kubernetes()?.scale(args.workers)], printer).await?;
            None
        }
    };
    let answer = || json!({ "search_id": id.as_str(), "workers_before": before, "workers": args.workers });
    printer.answer(answer, || format!("{} workers", args.workers))?;
    Ok(Exit::Ok)
}
