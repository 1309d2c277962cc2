//! The command line as clap sees it. Only shapes and help; what a verb does stands in its own file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use evocache_net::log::LogFormat;
use evocache_proto::domain::{Budget, SearchId};

use super::conditions::parse_condition;
use super::security_args::{CallerArgs, GuardArgs, TokenVerb};
use super::units::{parse_bytes, parse_duration, parse_finite, parse_listen, parse_ratio, parse_times};
use crate::client::{Constraint, Preference, Question};

const AFTER: &str = "\
Examples:
  evocache local                           a whole search on this machine
  evocache serve --data /var/lib/evocache  a coordinator for workers and people
  evocache launch search.toml --watch      create a search and follow it
  evocache best my-search --min-quality-ratio 98%
                                           the fastest that keeps 98 %

Exit codes: 0 done, 1 failed, 2 wrong command line or specification,
3 not found or nothing satisfies, 130 Ctrl-C.";

/// Finds caching schedules that make diffusion transformers faster.
#[derive(Debug, Parser)]
#[command(name = "evocache", version, propagate_version = true, after_help = AFTER, max_term_width = 100)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Address of the coordinator
    #[arg(
        long,
        global = true,
        help_heading = "Coordinator",
        env = "EVOCACHE_COORDINATOR",
        value_name = "URL",
        default_value = "http://127.0.0.1:7447"
    )]
    pub coordinator: String,
    /// What to show to it.
    #[command(flatten)]
    pub caller: CallerArgs,
    /// Answer in JSON on stdout
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Say more on stderr; twice for even more
    #[arg(short, long, global = true, help_heading = "Output", action = ArgAction::Count)]
    pub verbose: u8,
    /// No colours (as NO_COLOR does)
    #[arg(long, global = true, help_heading = "Output", env = "NO_COLOR", hide_env = true, value_parser = FalseyValueParser::new(), action = ArgAction::SetTrue)]
    pub no_color: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Search on this machine: coordinator, workers and results in one command
    #[cfg(feature = "local")]
    #[command(after_help = "\
Examples:
  evocache local                          search with the bundled model
  evocache local --budget 40 --workers 2  a short search
  evocache local --resume                 go on with an interrupted search
  evocache local --model ./PixArt-XL-2-512x512 --spec s.toml --device cuda:0

Writes to --out: front.json, front.svg, the three chosen schedules, sheet.png,
the store and the workers' logs; what there is, when Ctrl-C ends it.")]
    Local(LocalArgs),
    /// Run a coordinator
    #[cfg(feature = "server")]
    #[command(after_help = "\
Examples:
  evocache serve
  evocache serve --listen localhost:0 --json    any free port, told as JSON
  evocache serve --http 127.0.0.1:9464          with health and metrics
  evocache serve --listen 0.0.0.0:7447 --tls-cert cert.pem --tls-key key.pem \\
    --tokens tokens.toml                        for other machines

Ctrl-C or SIGTERM stops it; started again with the same --data it goes on where
it stopped. It reads certificates and tokens again when they change, and on
SIGHUP; a file that is wrong changes nothing.")]
    Serve(ServeArgs),
    /// Look after a store while no coordinator runs on it: check, backup, restore, compact
    #[cfg(feature = "server")]
    Store(super::store::StoreArgs),
    /// Back up the store of a coordinator while it runs, to one file, which ends with a digest
    #[cfg(feature = "server")]
    #[command(after_help = "\
Examples:
  evocache backup /mnt/backups              named after the moment
  evocache backup evocache.backup --coordinator https://coordinator.lan:7447

All of one moment; searches go on meanwhile. Where tokens are asked for, this
takes one of role admin. `evocache store restore` makes a store of the file.")]
    Backup(BackupToArgs),
    /// Plan a cluster: a real coordinator with simulated workers, and what it takes
    #[cfg(feature = "server")]
    #[command(after_help = "\
Examples:
  evocache simulate --workers 8 --time 1s --failure-rate 2% --kill-rate 10
  evocache simulate --workers 64 --evaluations 5000 --time 40s±20% --price 2.50
                    in real time: this takes an hour
  evocache simulate --workers 1000 --evaluations 5000 --time 0 --json
                    how fast the coordinator can be")]
    Simulate(crate::simulate::SimulateArgs),
    /// Create a search from a specification file
    #[command(after_help = "\
Examples:
  evocache launch deploy/examples/emoji.toml
  evocache launch search.toml --id nightly --watch
  evocache launch more-steps.toml --start-from nightly  from another's front
  evocache launch search.toml --check                   only check the file")]
    Launch(LaunchArgs),
    /// List the searches, newest first
    List,
    /// Show a search
    Show(SearchArg),
    /// Follow a search until it ends
    #[command(after_help = "With --json each change is one line of JSON.")]
    Watch(SearchArg),
    /// Hand out no more candidates of a search until it is resumed
    Pause(SearchArg),
    /// Go on with a paused search
    Resume(SearchArg),
    /// Raise the budget of a search; one that has completed runs on with all that it has
    #[command(after_help = "\
Examples:
  evocache extend my-search --evaluations 400
  evocache extend my-search --wall-time 8h --stagnation 200

Each limit is that of the whole search, what it has used included, and is
named as in a specification's [budget]. Limits that are not named stay.")]
    Extend(ExtendArgs),
    /// End a search for good; its results stay
    Stop(SearchArg),
    /// Delete a search that has ended, with all its results
    Delete(DeleteArgs),
    /// Show the front: the schedules that no other one beats in everything
    #[command(after_help = "\
Examples:
  evocache front my-search
  evocache front my-search --out results           all that `local` writes
  evocache front my-search --svg front.svg --sheet pictures.png")]
    Front(FrontArgs),
    /// Ask for the best schedule under conditions
    #[command(after_help = "\
Examples:
  evocache best my-search --min-quality-ratio 98%
  evocache best my-search --max-latency 35ms --prefer quality
  evocache best my-search --prefer knee --out schedule.json
  evocache best my-search --min-quality-ratio 98% --where 'psnr>=28'
  evocache best my-search --min-speedup 2x --prefer quality \\
    --out ecad.json --format ecad

All conditions hold together, and the answer keeps the bounds of the search's
objectives unless --ignore-bounds is given. Exit code 3 if no schedule
satisfies; the error names the nearest.")]
    Best(BestArgs),
    /// Show where a candidate comes from: its parents and theirs, to the roots
    #[command(after_help = "\
Examples:
  evocache explain my-search 194
  evocache explain my-search 194 --depth 2 --json

Origins of schedules that a search starts from:
  uncached             everything computed, at the largest step count
  fewer-steps          everything computed, at fewer steps
  fora                 everything computed every n-th step (FORA)
  even                 evenly spaced steps, a given share of them
  staggered            each module one step later than the one before it
  component-intervals  one kind of module every a-th step, the others every b-th
  gate                 a kind of module no more after a part of the run (T-GATE)
  step-mask            steps computed as cache-dit's presets have them
  density              a given share of module runs, at random
  forecast             every n-th step computed, extrapolated between
  smooth, path         from how much each module's output changes from step to
                       step (SmoothCache; dynamic programming)
  random               drawn at random
  a file's name        imported; SEARCH:CANDIDATE is from another's front

Operators that breed others from them:
  four-point, uniform, rectangle, whole-step, whole-block, whole-component
                       parts of two parents
  flip, shift, copy-step, fill, gap, toggle-forecast
                       changes in one schedule
  migrate              the same schedule at another step count
  model-…              built from what a model of the error predicts
  remeasure            measured once more, to know its latency better")]
    Explain(ExplainArgs),
    /// Measure a front again on other prompts, beside the heuristic schedules that it claims to beat
    #[command(after_help = "\
Examples:
  evocache validate my-search --prompts-file held-out.txt
  evocache validate my-search --prompts-file held-out.txt --prompts 64 --json
  evocache validate my-search --prompts-file held-out.txt --batch 1 \\
    --height 1024 --width 1024 --first-seed 1000 --name held-out

Creates a search of its own, which measures the front of the given one and its
heuristic schedules on the prompts of the file, follows it, and reports. The
same command with the --name of such a search goes on with it.")]
    Validate(ValidateArgs),
    /// List the workers
    Workers(WorkersArgs),
    /// Let a worker finish what it has and give it no more
    Drain(DrainArgs),
    /// Make tokens for a coordinator with --tokens
    #[command(subcommand)]
    Token(TokenVerb),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  evocache completions bash > /etc/bash_completion.d/evocache")]
    Completions(CompletionsArgs),
    /// One worker of `local`; started by it, not by people
    #[cfg(feature = "local")]
    #[command(hide = true)]
    WorkerProcess(crate::local::WorkerArgs),
}

impl Verb {
    /// The search that the verb is about.
    pub fn search(&self) -> Option<&SearchId> {
        match self {
            Self::Show(args) | Self::Watch(args) | Self::Pause(args) | Self::Resume(args) | Self::Stop(args) => {
                Some(&args.id)
            }
            Self::Extend(args) => Some(&args.id),
            Self::Delete(args) => Some(&args.id),
            Self::Front(args) => Some(&args.id),
            Self::Best(args) => Some(&args.id),
            Self::Explain(args) => Some(&args.id),
            Self::Validate(args) => Some(&args.id),
            _ => None,
        }
    }
}

/// A search by its id.
#[derive(Debug, Args)]
pub struct SearchArg {
    /// Id of the search
    #[arg(value_name = "ID")]
    pub id: SearchId,
}

/// Arguments of `local`.
#[derive(Debug, Args)]
pub struct LocalArgs {
    /// Evaluations to make [default: that of the specification]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub budget: Option<u64>,
    /// Worker processes [default: one per core, at most 4; 1 with --device cuda:N]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Folder of a model in the diffusers layout [default: the bundled model]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Specification of the search [default: that of the bundled model]
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// Folder for results, store and logs
    #[arg(long, value_name = "DIR", default_value = "evocache-local")]
    pub out: PathBuf,
    /// Go on with the search in --out, with its specification, budget, model and metrics
    #[arg(long)]
    pub resume: bool,
    /// Seed of the search [default: that of the specification]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Device of the workers: cpu, or cuda:N in a build with CUDA [default: cpu, or that of the search that goes on]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// What the workers measure beside CLIP score and PSNR, such as ssim or lpips=FILE; may be repeated
    #[arg(long = "metric", value_name = "NAME[=PATH]")]
    pub metrics: Vec<String>,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on, as HOST:PORT; port 0 takes any free one
    #[arg(long, value_name = "ADDR", env = "EVOCACHE_LISTEN", default_value = "127.0.0.1:7447", value_parser = parse_listen)]
    pub listen: SocketAddr,
    /// Folder of the store
    #[arg(long, value_name = "DIR", env = "EVOCACHE_DATA", default_value = "evocache-data")]
    pub data: PathBuf,
    /// Room to keep free on the store's disk: with less, nothing new is begun until there is more
    #[arg(long, value_name = "SIZE", env = "EVOCACHE_RESERVE", default_value = "256MiB", value_parser = parse_bytes)]
    pub reserve: u64,
    /// Go on with what a store still has, if it has lost what was acknowledged; the log says how much
    #[arg(long)]
    pub accept_loss: bool,
    /// How long a worker may be silent before its candidate is given to another
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub lease_ttl: Duration,
    /// Listen on an address that other machines reach, without encryption
    #[arg(long)]
    pub allow_remote_plaintext: bool,
    /// Answer operators on this address: /healthz, /readyz, and /metrics for Prometheus [default: nowhere]
    #[arg(long, value_name = "ADDR", env = "EVOCACHE_HTTP", value_parser = parse_listen)]
    pub http: Option<SocketAddr>,
    /// Send traces to this OTLP collector, over gRPC, such as http://127.0.0.1:4317 [default: nowhere]
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// How the log on stderr is written
    #[arg(long, value_enum, value_name = "FORMAT", env = "EVOCACHE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Whom to let in.
    #[command(flatten)]
    pub guard: GuardArgs,
}

/// Arguments of `backup`.
#[cfg(feature = "server")]
#[derive(Debug, Args)]
pub struct BackupToArgs {
    /// File to write, or a folder for it
    #[arg(value_name = "FILE_OR_DIR")]
    pub to: PathBuf,
}

/// Arguments of `launch`.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// Specification of the search (TOML)
    #[arg(value_name = "SPEC.toml")]
    pub spec: PathBuf,
    /// Id of the search [default: that of the file, or one that the coordinator makes]
    #[arg(long)]
    pub id: Option<SearchId>,
    /// Begin with the front of another search too; may be given several times [default: those of the file]
    #[arg(long, value_name = "SEARCH")]
    pub start_from: Vec<SearchId>,
    /// Follow the search until it ends
    #[arg(long, conflicts_with = "check")]
    pub watch: bool,
    /// Only check the specification: here, at the coordinator, and whether a live worker offers what it names
    #[arg(long)]
    pub check: bool,
}

/// Arguments of `extend`.
#[derive(Debug, Args)]
pub struct ExtendArgs {
    /// Id of the search
    #[arg(value_name = "ID")]
    pub id: SearchId,
    /// What to raise.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Limits of a budget.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct LimitArgs {
    /// Evaluations, all together
    #[arg(long, visible_alias = "budget", value_name = "N")]
    pub evaluations: Option<u64>,
    /// Time since its first worker, such as 8h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub wall_time: Option<Duration>,
    /// Time that devices are busy, all together
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub device_time: Option<Duration>,
    /// Evaluations in a row without growth of the hypervolume
    #[arg(long, value_name = "N")]
    pub stagnation: Option<u64>,
}

impl LimitArgs {
    /// As a budget.
    pub fn budget(&self) -> Budget {
        let Self { evaluations, wall_time, device_time, stagnation } = *self;
        Budget { evaluations, wall_time, device_time, stagnation }
    }
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Id of the search
    #[arg(value_name = "ID")]
    pub id: SearchId,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `front`.
#[derive(Debug, Args)]
pub struct FrontArgs {
    /// Id of the search
    #[arg(value_name = "ID")]
    pub id: SearchId,
    /// Write front.json, front.svg, the chosen schedules and sheet.png to a folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Draw the front, as SVG
    #[arg(long, value_name = "FILE.svg", value_parser = svg_file)]
    pub svg: Option<PathBuf>,
    /// Compose the pictures of the chosen schedules beside the uncached ones, as PNG
    #[arg(long, value_name = "FILE.png", value_parser = png_file)]
    pub sheet: Option<PathBuf>,
    /// Rows of the table at most, spread over the front; 0 for all
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: usize,
}

fn svg_file(text: &str) -> Result<PathBuf, String> {
    ending(text, "svg", "SVG")
}

fn png_file(text: &str) -> Result<PathBuf, String> {
    ending(text, "png", "PNG")
}

/// A file is not to be something else than its name says.
fn ending(text: &str, ending: &str, format: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(other) if !other.eq_ignore_ascii_case(ending) => {
            Err(format!("it is written as {format}; name it like {}", path.with_extension(ending).display()))
        }
        Some(_) | None => Ok(path),
    }
}

/// Arguments of `best`.
#[derive(Debug, Args)]
pub struct BestArgs {
    /// Id of the search
    #[arg(value_name = "ID")]
    pub id: SearchId,
    /// The constraint.
    #[command(flatten)]
    pub constraint: ConstraintArgs,
    /// What to prefer among the schedules that satisfy the constraint
    #[arg(long, value_enum, default_value = "fastest")]
    pub prefer: Prefer,
    /// Write the schedule to a file; '-' for stdout
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Format of that file
    #[arg(long, value_enum, default_value = "evocache", requires = "out")]
    pub format: Format,
}

/// What a schedule must have; all that is given holds together.
#[derive(Debug, Args)]
pub struct ConstraintArgs {
    /// Latency over the uncached latency, at most (0.5 or 50%)
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    pub max_latency_ratio: Option<f64>,
    /// Uncached latency over the latency, at least (2 or 2x)
    #[arg(long, value_name = "X", value_parser = parse_times)]
    pub min_speedup: Option<f64>,
    /// Latency per image, at most (35ms)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub max_latency: Option<Duration>,
    /// Value of the quality metric, at least; at most if it is minimised
    #[arg(long, value_name = "X", value_parser = parse_finite, allow_negative_numbers = true)]
    pub min_quality: Option<f64>,
    /// Share to keep of the uncached quality, at least (0.98 or 98%)
    #[arg(long, value_name = "RATIO", value_parser = parse_ratio)]
    pub min_quality_ratio: Option<f64>,
    /// Peak bytes of cached outputs per image, at most (100MiB)
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    pub max_cache: Option<u64>,
    /// Any metric, at least or at most, or a share kept of the uncached one's: psnr>=28, lpips<=0.05, clip_score>=98%.
    /// May be repeated
    #[arg(long = "where", value_name = "CONDITION", value_parser = parse_condition)]
    pub conditions: Vec<Constraint>,
    /// Look beyond the bounds of the search's objectives too
    #[arg(long)]
    pub ignore_bounds: bool,
}

impl ConstraintArgs {
    /// The question, with this preference.
    pub fn question(self, preference: Preference) -> Question {
        let named = [
            self.max_latency_ratio.map(Constraint::MaxLatencyRatio),
            self.min_speedup.map(Constraint::MinSpeedup),
            self.max_latency.map(Constraint::MaxLatency),
            self.min_quality.map(Constraint::MinQuality),
            self.min_quality_ratio.map(Constraint::MinQualityRatio),
            self.max_cache.map(Constraint::MaxCacheBytes),
        ];
        let constraints = named.into_iter().flatten().chain(self.conditions).collect();
        Question { constraints, preference, ignore_bounds: self.ignore_bounds }
    }
}

/// What to prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Prefer {
    /// The lowest latency
    Fastest,
    /// The best quality
    Quality,
    /// The best bargain: farthest from the line between the front's ends
    Knee,
}

impl From<Prefer> for Preference {
    fn from(prefer: Prefer) -> Self {
        match prefer {
            Prefer::Fastest => Self::Fastest,
            Prefer::Quality => Self::BestQuality,
            Prefer::Knee => Self::Knee,
        }
    }
}

/// A format of schedules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// evocache's own: a line per cacheable module
    Evocache,
    /// That of ECAD: PixArt and FLUX, without forecasts
    Ecad,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Id of the search
    #[arg(value_name = "ID")]
    pub id: SearchId,
    /// Number of the candidate
    #[arg(value_name = "CANDIDATE")]
    pub candidate: u64,
    /// Generations to go back at most
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub depth: usize,
}

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Id of the search whose front is validated
    #[arg(value_name = "ID")]
    pub id: SearchId,
    /// Prompts that the search has not seen, one a line
    #[arg(long, value_name = "FILE")]
    pub prompts_file: PathBuf,
    /// Take the first so many of them [default: all]
    #[arg(long, value_name = "N")]
    pub prompts: Option<usize>,
    /// Noise seed of the first prompt; the next ones count up
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub first_seed: u64,
    /// Images generated together, where serving will have other batches [default: the search's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,
    /// Pixels, where serving will have another size [default: the search's]
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<u32>,
    /// Pixels [default: the search's]
    #[arg(long, value_name = "PIXELS")]
    pub width: Option<u32>,
    /// Classifier-free guidance [default: the search's]
    #[arg(long, value_name = "SCALE")]
    pub guidance_scale: Option<f64>,
    /// Id of the search that is created [default: one that the coordinator makes]
    #[arg(long, visible_alias = "id", value_name = "NEW_ID")]
    pub name: Option<SearchId>,
    /// Share of the uncached quality that a schedule must keep (0.98 or 98%)
    #[arg(long, value_name = "RATIO", default_value = "0.98", value_parser = parse_ratio)]
    pub quality_ratio: f64,
}

/// Arguments of `workers`.
#[derive(Debug, Args)]
pub struct WorkersArgs {
    /// List those too that are gone: silent for long, and without a lease
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Id of the worker, or its name if no other has it
    #[arg(value_name = "ID_OR_NAME")]
    pub worker: String,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_fit_into_eighty_columns() {
        fn walk(command: &clap::Command) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn a_search_starts_from_as_many_others_as_one_likes() {
        let cli = Cli::try_parse_from("evocache launch s.toml --start-from a --start-from b".split(' ')).unwrap();
        let Verb::Launch(launch) = cli.verb else { panic!("not launch") };
        assert_eq!(launch.start_from.iter().map(SearchId::as_str).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn conditions_combine() {
        let parse = |args: &str| Cli::try_parse_from(args.split(' '));
        let cli = parse("evocache best s --max-latency 35ms --prefer quality").unwrap();
        let Verb::Best(best) = cli.verb else { panic!("not best") };
        assert_eq!(
            best.constraint.question(best.prefer.into()),
            Question::new(vec![Constraint::MaxLatency(Duration::from_millis(35))], Preference::BestQuality)
        );
        let all = "evocache best s --min-quality-ratio 98% --min-speedup 2x --where psnr>=28 --where lpips<=0.1 --ignore-bounds";
        let Verb::Best(best) = parse(all).unwrap().verb else { panic!("not best") };
        let question = best.constraint.question(Preference::Fastest);
        assert!(question.ignore_bounds && question.constraints.len() == 4, "{question:?}");
        assert_eq!(question.constraints[..2], [Constraint::MinSpeedup(2.0), Constraint::MinQualityRatio(0.98)]);
        let percent = parse("evocache best s --min-quality-ratio 98").unwrap_err();
        assert!(percent.exit_code() == 2 && percent.to_string().contains("98% or 0.98"), "{percent}");
        assert!(parse("evocache best s --min-quality -0.5").is_ok());
        assert!(parse("evocache best S").is_err(), "an id in capitals");
        assert!(parse("evocache explain s owl").is_err(), "a candidate is a number");
        assert!(parse("evocache best s --format ecad").is_err(), "a format without a file");
    }
}
