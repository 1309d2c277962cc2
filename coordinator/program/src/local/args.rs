//! The arguments of `local`.

use std::path::PathBuf;

use clap::Args;

/// Search on this machine: coordinator, workers and results in one command
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache local                          search with the bundled model
  evocache local --budget 40 --workers 2  a short search
  evocache local --resume                 go on with an interrupted search
  evocache local --model ./PixArt-XL-2-512x512 --spec s.toml --device cuda:0

Writes to --out: front.json, front.svg, the three chosen schedules, sheet.png,
the store and the workers' logs. Ctrl-C ends the search and writes the results
so far.")]
pub(crate) struct LocalArgs {
    /// Number of evaluations [default: that of the specification]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(super) budget: Option<u64>,
    /// Worker processes [default: one per core, at most 4; 1 with --device cuda:N]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) workers: Option<u16>,
    /// Folder of a model in the diffusers layout [default: the bundled model: share/evocache/models/emoji beside the program,
    /// in its source tree, or in the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub(super) model: Option<PathBuf>,
    /// Specification of the search [default: that of the bundled model]
    #[arg(long, value_name = "FILE")]
    pub(super) spec: Option<PathBuf>,
    /// Folder for results, store and logs
    #[arg(long, value_name = "DIR", default_value = "evocache-local")]
    pub(super) out: PathBuf,
    /// Go on with the search in --out, with its specification, budget, model and metrics
    #[arg(long)]
    pub(super) resume: bool,
    /// Seed of the search [default: that of the specification]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Device of the workers: cpu, or cuda:N in a build with CUDA [default: cpu, or that of the resumed search]
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<String>,
    /// Metric to measure besides CLIP score and PSNR, such as ssim or lpips=FILE; may be repeated
    #[arg(long = "metric", value_name = "NAME[=PATH]")]
    pub(super) metrics: Vec<String>,
    /// The user's data folder, which may hold the bundled model
    #[arg(long, env = "XDG_DATA_HOME", value_name = "DIR", hide = true)]
    pub(super) data_home: Option<PathBuf>,
}
