//! `run`: the worker itself. Loads a model and evaluates candidates of a coordinator until drained or shut down.
//!
//! Does not speak the protocol: that is [`crate::agent`].

use std::future::pending;
use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use evocache_net::channel::AddressError;
use evocache_net::children;
use evocache_net::log::{LogFormat, LogOptions, Logging};
use evocache_net::signals::Signals;
use evocache_proto::units::{parse_bytes, parse_duration};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::caller::CallerArgs;
use super::metrics::MetricArgs;
use super::model::ModelArgs;
use super::supervisor::{self, Post};
use super::{CliError, report};
use crate::agent::{self, AgentConfig, AgentError, Ended};
use crate::evaluator::api::Evaluate;
use crate::evaluator::device::{DeviceChoice, DeviceList};
use crate::evaluator::{DiffusionEvaluator, EvaluatorOptions};
use crate::samplers::SamplerOptions;

/// The variables in which rayon and candle look for the number of threads, once, before they start the first thread.
const THREAD_VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

/// Evaluate candidates for a coordinator
///
/// Registers, leases candidates, measures them and reports the results until the coordinator drains it, a signal
/// arrives, or --idle-timeout has passed. SIGTERM or Ctrl-C releases the candidate and ends with exit code 0; a second
/// signal ends at once. If the coordinator becomes unreachable, the worker waits for it.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// URL of the coordinator
    #[arg(long, env = "EVOCACHE_COORDINATOR", value_name = "URL", default_value = "http://127.0.0.1:7447")]
    pub coordinator: String,
    /// Credentials for the coordinator.
    #[command(flatten)]
    pub caller: CallerArgs,
    /// The model to load.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Model name that searches refer to [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Display name of this worker; with --devices, each process appends its device [default: HOST/PID]
    #[arg(long, value_name = "NAME", overrides_with = "name")]
    pub name: Option<String>,
    /// Label that a search may require, such as zone=a; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Memory of the device, for searches that require a minimum, such as 80GiB
    #[arg(long, value_name = "SIZE", value_parser = device_memory)]
    pub device_memory: Option<u64>,
    /// Number of compute threads on the CPU [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Device to run on: cpu, cuda, cuda:N or metal
    #[arg(long, default_value = "cpu", overrides_with = "devices")]
    pub device: DeviceChoice,
    /// Run one worker process per device: 'all' (every CUDA device) or a list such as cuda:0,cuda:2. This process
    /// restarts workers that crash and forwards SIGTERM to them
    #[arg(long, value_name = "LIST", overrides_with = "device")]
    pub devices: Option<DeviceList>,
    /// How often a worker of --devices is restarted after a crash, after waits of 1 s, 2 s, 4 s, … up to a minute; the
    /// count resets once a worker has run for ten minutes
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub restarts: u32,
    /// Set by a supervising process: stop when stdin ends, because then the supervising process has ended.
    #[arg(long, hide = true, overrides_with = "supervised")]
    pub supervised: bool,
    /// Set by a supervising process whose workers share a log: the device that each line starts with.
    #[arg(long, hide = true, overrides_with = "log_prefix")]
    pub log_prefix: Option<String>,
    /// The metrics to measure.
    #[command(flatten)]
    pub metrics: MetricArgs,
    /// How long to wait for the coordinator at startup, such as 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub connect_timeout: Duration,
    /// Exit with code 0 once the coordinator has had no work for this long, such as 10m; for machines that others wait
    /// for [default: wait for work]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub idle_timeout: Option<Duration>,
    /// Log level on stderr: error, warn, info, debug or a tracing filter
    #[arg(long, env = "EVOCACHE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// Format of the log
    #[arg(long, value_enum, value_name = "FORMAT", env = "EVOCACHE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Send traces over gRPC to this OTLP collector, such as http://127.0.0.1:4317 [default: off]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

/// How the worker ended.
enum End {
    Agent(Result<Ended, AgentError>),
    /// By a second signal, with its number.
    Forced(u8),
}

/// Runs the subcommand until the worker is drained or shut down. Blocks; must be called from `main` before any other
/// thread starts.
///
/// With `--threads`, the process may replace itself: rayon and candle read the number from the environment, which must
/// not be changed in a running process.
pub fn run(args: RunArgs) -> ExitCode {
    if args.supervised {
        children::end_with_parent();
    }
    let end = match &args.devices {
        Some(devices) => supervise(&args, devices),
        None => work_alone(&args),
    };
    match end {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn work_alone(args: &RunArgs) -> Result<ExitCode, CliError> {
    match prepare(args)? {
        Prepared::Worker(evaluator, runtime, logging) => work(args, evaluator, runtime, logging),
        Prepared::Done(code) => Ok(code),
    }
}

/// Runs one worker process per device. This process computes nothing itself.
fn supervise(args: &RunArgs, devices: &DeviceList) -> Result<ExitCode, CliError> {
    let filter = filter(args)?;
    config(args)?.check()?;
    let devices = devices.resolve()?;
    let base = args.name.clone().unwrap_or_else(default_name);
    let program = std::env::current_exe().map_err(|e| CliError::new(format!("cannot find this program: {e}")))?;
    let runtime = runtime()?;
    let logging = {
        let _inside = runtime.enter();
        start_log(args, filter)?
    };
    let posts = Post::all(&program, &devices, &base);
    let end = runtime.block_on(supervisor::run(posts, args.restarts));
    runtime.block_on(logging.end());
    end.map_err(|e| CliError::new(format!("cannot install signal handlers: {e}")))
}

enum Prepared {
    Worker(Box<dyn Evaluate>, Runtime, Logging),
    /// Another process did the work and ended with this code.
    Done(ExitCode),
}

fn prepare(args: &RunArgs) -> Result<Prepared, CliError> {
    let filter = filter(args)?;
    if let Some(threads) = args.threads
        && let Some(code) = with_threads(threads).map_err(|e| {
            CliError::new(format!("cannot start with {threads} threads: {e}"))
                .hint(format!("set {} yourself and omit --threads", THREAD_VARIABLES.join(" and ")))
        })?
    {
        return Ok(Prepared::Done(code));
    }
    let runtime = runtime()?;
    let logging = {
        let _inside = runtime.enter();
        start_log(args, filter)?
    };
    // Report a wrong URL or certificate before the model is loaded, which may take minutes.
    config(args)?.check()?;
    let folder = args.model.folder()?;
    info!("loading {} on {}", folder.display(), args.device);
    let evaluator = DiffusionEvaluator::open(&EvaluatorOptions {
        model: folder,
        model_name: args.model_name.clone(),
        worker_name: args.name.clone().unwrap_or_else(default_name),
        labels: args.labels.iter().cloned().collect(),
        memory_bytes: args.device_memory.unwrap_or(0),
        device: args.device,
        precision: args.model.precision(args.device),
        clip: args.metrics.clip.clone(),
        metrics: args.metrics.metrics.clone(),
        texts: args.model.texts(),
        samplers: SamplerOptions::default(),
        vae_tiling: args.model.vae_tiling,
        memory: args.model.memory,
    })?;
    Ok(Prepared::Worker(Box::new(evaluator), runtime, logging))
}

fn filter(args: &RunArgs) -> Result<EnvFilter, CliError> {
    EnvFilter::try_new(&args.log)
        .map_err(|e| CliError::new(format!("--log '{}' is invalid: {e}", args.log)).hint("use a level, such as info"))
}

fn start_log(args: &RunArgs, filter: EnvFilter) -> Result<Logging, CliError> {
    let options = LogOptions {
        filter,
        format: args.log_format,
        no_color: false,
        prefix: args.log_prefix.clone(),
        collector: args.otlp_endpoint.clone().map(|endpoint| evocache_net::telemetry::Collector {
            endpoint,
            service: "evocache-worker",
            version: env!("CARGO_PKG_VERSION"),
        }),
    };
    Logging::start(options).map_err(|e| {
        CliError::new(e.to_string()).hint("write --otlp-endpoint as http://HOST:4317, in a build with the feature otlp")
    })
}

/// A single-threaded runtime: the agent makes few small calls, and the other threads compute.
fn runtime() -> Result<Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| CliError::new(format!("cannot start the async runtime: {e}")))
}

fn config(args: &RunArgs) -> Result<AgentConfig, CliError> {
    let credentials = args.caller.credentials()?;
    let defaults = AgentConfig::new(args.coordinator.clone());
    let (connect_timeout, idle_timeout) = (args.connect_timeout, args.idle_timeout);
    Ok(AgentConfig { credentials, connect_timeout, idle_timeout, ..defaults })
}

fn work(
    args: &RunArgs,
    evaluator: Box<dyn Evaluate>,
    runtime: Runtime,
    logging: Logging,
) -> Result<ExitCode, CliError> {
    let config = config(args)?;
    let end = runtime.block_on(until_told(config, evaluator, args.supervised));
    runtime.block_on(logging.end());
    let end = end.map_err(|e| CliError::new(format!("cannot install signal handlers: {e}")))?;
    runtime.shutdown_background();
    match end {
        End::Agent(Ok(Ended::Drained | Ended::Idle | Ended::ShutDown)) => Ok(ExitCode::SUCCESS),
        End::Agent(Err(error)) => Err(error.into()),
        End::Forced(signal) => Ok(ExitCode::from(128 + signal)),
    }
}

/// Runs the agent. A signal shuts it down; a second signal abandons it, unless a process supervises this one: what
/// signals a whole group, as batch systems do, comes once by itself and once through that process, which can kill.
async fn until_told(config: AgentConfig, evaluator: Box<dyn Evaluate>, supervised: bool) -> io::Result<End> {
    let mut signals = Signals::listen()?;
    let (ask, asked) = oneshot::channel::<()>();
    let mut agent = pin!(agent::run(config, evaluator, async {
        if asked.await.is_err() {
            pending::<()>().await;
        }
    }));
    tokio::select! {
        ended = &mut agent => return Ok(End::Agent(ended)),
        _ = signals.next() => info!("shutting down{}", if supervised { "" } else { "; a second signal ends at once" }),
    }
    let _ = ask.send(());
    Ok(tokio::select! {
        ended = &mut agent => End::Agent(ended),
        signal = signals.next(), if !supervised => End::Forced(signal),
    })
}

/// Makes rayon and candle start this many threads, by running the program again with the variables that both read.
/// Setting them in this process would be unsound, because other threads may read the environment; rayon's pool could be
/// built with the number, but candle's cannot.
///
/// Returns `None` if this process has the variables already. On systems where a process cannot replace itself, returns
/// the exit code of the process that did the work.
fn with_threads(threads: NonZeroUsize) -> io::Result<Option<ExitCode>> {
    let wanted = threads.to_string();
    if THREAD_VARIABLES.iter().all(|name| std::env::var_os(name).is_some_and(|value| value == wanted.as_str())) {
        return Ok(None);
    }
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1)).envs(THREAD_VARIABLES.map(|name| (name, &wanted)));
    go_on_as(&mut again).map(Some)
}

#[cfg(unix)]
fn go_on_as(command: &mut Command) -> io::Result<ExitCode> {
    // `exec` returns only if it fails.
    Err(std::os::unix::process::CommandExt::exec(command))
}

#[cfg(not(unix))]
fn go_on_as(command: &mut Command) -> io::Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(150).collect();
    let host = if host.is_empty() { "worker" } else { &host };
    format!("{host}/{}", std::process::id())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not KEY=VALUE, such as zone=a"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Refuses less than 1 MiB: in old versions a number without a unit meant MiB, now it means bytes.
fn device_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes < 1 << 20 { Err(format!("'{text}' means {bytes} bytes; write a unit, such as 80GiB")) } else { Ok(bytes) }
}

impl From<AgentError> for CliError {
    fn from(error: AgentError) -> Self {
        let hint = match &error {
            AgentError::Address(AddressError::Url { .. }) => Some("write it as https://HOST:PORT or http://HOST:PORT"),
            AgentError::Address(AddressError::Credentials(e)) => Some(e.hint()),
            AgentError::Denied { .. } => {
                Some("give a token of role worker with --token-file FILE or in the variable EVOCACHE_TOKEN")
            }
            AgentError::Unreachable { last, .. } if last.contains("certificate") || last.contains("canceled") => Some(
                "give the authority that signed the coordinator's certificate with --ca FILE, and, if the coordinator \
                 requires one, a client certificate with --client-cert and --client-key",
            ),
            AgentError::Unreachable { .. } => Some(
                "start a coordinator with `evocache serve`, give another URL with --coordinator, or wait longer with \
                 --connect-timeout",
            ),
            AgentError::Refused { .. } => Some("use the same release of worker and coordinator"),
            AgentError::Declaration(_) => Some("shorten --name or --model-name"),
            AgentError::Thread(_) | AgentError::EvaluatorGone => None,
        };
        let told = Self::new(error.to_string());
        match hint {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_without_a_unit_is_refused_where_it_would_be_next_to_none() {
        assert_eq!(device_memory("80GiB"), Ok(80 << 30));
        assert!(device_memory("81920").unwrap_err().contains("write a unit"));
    }

    #[test]
    fn a_worker_without_a_name_is_called_by_host_and_process() {
        let name = default_name();
        assert!(name.ends_with(&format!("/{}", std::process::id())) && name.len() > 2, "{name}");
    }
}
