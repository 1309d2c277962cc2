//! `launch --on`: has an engine start coordinator and workers around the launch of a search.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::{sleep, timeout};

use crate::cli::cluster::kubernetes::Kubernetes;
use crate::cli::cluster::profile::Profile;
use crate::cli::cluster::slurm::Slurm;
use crate::cli::cluster::step::Step;
use crate::cli::kit::exit::Failure;
use crate::cli::kit::global::Global;
use crate::cli::kit::printer::Printer;

/// How long a coordinator's job may wait for a node.
const PATIENCE: Duration = Duration::from_secs(900);

/// What schedules machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Jobs by sbatch
    Slurm,
    /// A release of the chart by helm
    Kubernetes,
}

/// Where a cluster is, and what the site says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct SiteArgs {
    /// What the site always says (TOML): partitions, values, arguments of workers
    #[arg(long, env = "EVOCACHE_PROFILE", value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Folder that all nodes of Slurm mount, if the profile names none
    #[arg(long, env = "EVOCACHE_SHARED", value_name = "DIR")]
    pub shared: Option<PathBuf>,
}

/// How `launch` uses a cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct LaunchOnArgs {
    /// Have this engine start coordinator and workers
    #[arg(long, value_enum, value_name = "ENGINE", requires = "workers", conflicts_with = "check")]
    pub on: Option<Engine>,
    /// Number of workers
    #[arg(long, value_name = "N", requires = "on", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub workers: Option<u32>,
    /// GPUs of each worker; 0 for workers on the CPU
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=64))]
    pub gpus_per_worker: u32,
    /// Print as a shell script what would be done, and do nothing
    #[arg(long, requires = "on")]
    pub dry_run: bool,
    /// The site.
    #[command(flatten)]
    pub site: SiteArgs,
}

impl SiteArgs {
    pub(super) fn slurm(&self) -> Result<Slurm, Failure> {
        Slurm::new(Profile::read(self.profile.as_deref())?.slurm, self.shared.clone())
    }

    pub(super) fn kubernetes(&self) -> Result<Kubernetes, Failure> {
        Ok(Kubernetes::new(Profile::read(self.profile.as_deref())?.kubernetes))
    }
}

/// Starts the coordinator, and with Kubernetes the workers too. Returns how to call it.
pub(super) async fn start(
    global: &Global,
    engine: Engine,
    args: &LaunchOnArgs,
    printer: Printer,
) -> Result<Global, Failure> {
    match engine {
        Engine::Slurm => {
            let slurm = args.site.slurm()?;
            carry_out(&slurm.prepare(), printer).await?;
            if slurm.jobs(&slurm.list_coordinator().run().await?).is_empty() {
                carry_out(&slurm.start(), printer).await?;
            }
            printer.note("waiting for the coordinator's job");
            let (ca, token) = slurm.credentials();
            let mut reached = global.clone();
            reached.coordinator = address(&slurm.address()).await?;
            (reached.caller.ca, reached.caller.token_file) = (Some(ca), Some(token));
            printer.note(&format!("the coordinator is at {}", reached.coordinator));
            Ok(reached)
        }
        Engine::Kubernetes => {
            let kubernetes = args.site.kubernetes()?;
            let steps = kubernetes.install(args.workers.unwrap_or(1), args.gpus_per_worker);
            carry_out(&steps, printer).await?;
            // An address in the cluster is not one for this machine: that of the caller is tried.
            global.connect().await.map_err(|failure| {
                let hint = format!("{}; then launch again", kubernetes.notes());
                Failure { message: format!("the release is installed, and {}", failure.message), ..failure }.hint(hint)
            })?;
            Ok(global.clone())
        }
    }
}

/// Adds the workers of a search that was created.
pub(super) async fn add_workers(
    engine: Engine,
    args: &LaunchOnArgs,
    search: &str,
    printer: Printer,
) -> Result<(), Failure> {
    match engine {
        Engine::Slurm => {
            let step = args.site.slurm()?.add(search, args.workers.unwrap_or(1), args.gpus_per_worker);
            carry_out(&[step], printer).await
        }
        Engine::Kubernetes => Ok(()),
    }
}

/// What would be done, as a shell script.
pub(super) fn script(
    engine: Engine,
    args: &LaunchOnArgs,
    spec: &Path,
    search: Option<&str>,
) -> Result<String, Failure> {
    let workers = args.workers.unwrap_or(1);
    let name = search.map_or(String::new(), |id| format!(" --id {id}"));
    let launch = format!("evocache launch '{}'{name}", spec.display().to_string().replace('\'', r"'\''"));
    let mut lines = vec!["set -e; umask 077".to_owned()];
    let mut show = |steps: &[Step]| lines.extend(steps.iter().map(ToString::to_string));
    match engine {
        Engine::Slurm => {
            let slurm = args.site.slurm()?;
            show(&slurm.prepare());
            show(&slurm.start());
            let (ca, token) = slurm.credentials();
            let address = slurm.address();
            lines.push(format!(
                "until [ -s {address} ]; do sleep 1; done\nEVOCACHE_COORDINATOR=$(cat {address}) {launch} --ca {} --token-file {}",
                ca.display(),
                token.display(),
                address = address.display(),
            ));
            lines.push(slurm.add(search.unwrap_or("ID"), workers, args.gpus_per_worker).to_string());
        }
        Engine::Kubernetes => {
            show(&args.site.kubernetes()?.install(workers, args.gpus_per_worker));
            lines.push(launch);
        }
    }
    Ok(lines.join("\n"))
}

pub(super) async fn carry_out(steps: &[Step], printer: Printer) -> Result<(), Failure> {
    for step in steps {
        if let Step::Run(program) = step {
            printer.note(&program.to_string());
        }
        step.carry_out().await?;
    }
    Ok(())
}

/// Waits until the coordinator's job has written its address.
async fn address(file: &Path) -> Result<String, Failure> {
    let written = async {
        loop {
            match std::fs::read_to_string(file) {
                Ok(text) if !text.trim().is_empty() => return text.trim().to_owned(),
                // It is not there yet, or not seen yet on this node.
                Ok(_) | Err(_) => sleep(Duration::from_secs(1)).await,
            }
        }
    };
    timeout(PATIENCE, written).await.map_err(|_| {
        Failure::new(format!("no coordinator has written '{}' within 15 minutes", file.display())).hint(
            "`squeue --me --name=evocache-coordinator` says why its job waits, and its log beside the file why it failed; once \
             it runs, the same command goes on",
        )
    })
}
