//! `run`: the worker itself. Loads a model, then evaluates what a coordinator asks for until it is told to leave.
//!
//! Absent on purpose: the protocol, which is [`crate::agent`]'s.

use std::future::pending;
use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Args;
use evocache_proto::units::{parse_bytes, parse_duration};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::caller::CallerArgs;
use super::log::{LogFormat, Logging};
use super::metrics::MetricArgs;
use super::model::ModelArgs;
use super::signals::Signals;
use super::supervisor::{self, Post};
use super::{CliError, report};
use crate::agent::{self, AgentConfig, AgentError, Ended};
use crate::evaluator::api::Evaluate;
use crate::evaluator::device::{DeviceChoice, DeviceList};
use crate::evaluator::{DiffusionEvaluator, EvaluatorOptions};
use crate::samplers::SamplerOptions;

/// Where rayon and candle read how many threads to start, once, when they first need one.
const THREAD_VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];

/// Evaluate candidates for a coordinator.
///
/// Registers, pulls candidates, measures them and reports, until the coordinator drains it or it is interrupted. One
/// SIGTERM or Ctrl-C gives the candidate back and ends with exit code 0; a second one ends at once. A coordinator that
/// goes away is waited for.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Coordinator to work for
    #[arg(long, env = "EVOCACHE_COORDINATOR", value_name = "URL", default_value = "http://127.0.0.1:7447")]
    pub coordinator: String,
    /// What to show to it.
    #[command(flatten)]
    pub caller: CallerArgs,
    /// What to load.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Name by which searches ask for the model [default: the folder's]
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Name of this worker, for people; with --devices, each adds its device [default: HOST/PID]
    #[arg(long, value_name = "NAME", overrides_with = "name")]
    pub name: Option<String>,
    /// What searches may ask for, such as zone=a; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Memory of the device, for searches that ask for it, such as 80GiB
    #[arg(long, value_name = "SIZE", value_parser = device_memory)]
    pub device_memory: Option<u64>,
    /// Threads to compute with on the CPU [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Where to run: cpu, cuda, cuda:N, metal
    #[arg(long, default_value = "cpu", overrides_with = "devices")]
    pub device: DeviceChoice,
    /// Run a worker process on each of these devices under this one: 'all' CUDA devices, or such as cuda:0,cuda:2. One that
    /// crashes is started again; SIGTERM is passed on once and waited for
    #[arg(long, value_name = "LIST", overrides_with = "device")]
    pub devices: Option<DeviceList>,
    /// How often a worker of --devices that crashes is started again, after 1 s, 2 s, 4 s, … at most a minute; counted anew
    /// once it has run for ten minutes
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub restarts: u32,
    /// Set by the process above this one: the log carries the device, and the end of stdin is the end of that process.
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// What to measure.
    #[command(flatten)]
    pub metrics: MetricArgs,
    /// How long to wait for the coordinator at the start, such as 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub connect_timeout: Duration,
    /// What to log, to stderr: error, warn, info, debug or a tracing filter
    #[arg(long, env = "EVOCACHE_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How the log is written
    #[arg(long, value_enum, value_name = "FORMAT", env = "EVOCACHE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Send traces to this OTLP collector, over gRPC, such as http://127.0.0.1:4317 [default: nowhere]
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

/// How it ended.
enum End {
    Agent(Result<Ended, AgentError>),
    /// A second signal came; its number.
    Forced(u8),
}

/// Runs the verb until it is told to leave. Blocks; to be called from `main`, before any other thread is started.
///
/// With `--threads` it may replace the process by itself: rayon and candle read the number from the
/// environment, once, and to change it in a running process would be unsound.
pub fn run(args: RunArgs) -> ExitCode {
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

/// One process per device under this one, which computes nothing itself.
fn supervise(args: &RunArgs, devices: &DeviceList) -> Result<ExitCode, CliError> {
    let filter = filter(args)?;
    config(args)?.check()?;
    let devices = devices.resolve()?;
    let base = args.name.clone().unwrap_or_else(default_name);
    let program = std::env::current_exe().map_err(|e| CliError::new(format!("cannot find this program: {e}")))?;
    let runtime = runtime()?;
    let logging = {
        let _inside = runtime.enter();
        Logging::start(args, filter, None)?
    };
    let posts = Post::all(&program, &devices, &base);
    let end = runtime.block_on(supervisor::run(posts, args.restarts));
    runtime.block_on(logging.end());
    end.map_err(|e| CliError::new(format!("cannot start: {e}")))
}

enum Prepared {
    Worker(Box<dyn Evaluate>, Runtime, Logging),
    /// Another process has done the work.
    Done(ExitCode),
}

fn prepare(args: &RunArgs) -> Result<Prepared, CliError> {
    let filter = filter(args)?;
    if let Some(threads) = args.threads
        && let Some(code) = with_threads(threads).map_err(|e| {
            CliError::new(format!("cannot start with {threads} threads: {e}"))
                .hint(format!("set {} yourself and leave --threads away", THREAD_VARIABLES.join(" and ")))
        })?
    {
        return Ok(Prepared::Done(code));
    }
    let runtime = runtime()?;
    let logging = {
        let _inside = runtime.enter();
        Logging::start(args, filter, args.supervised.then(|| args.device.to_string()))?
    };
    // Loading may take minutes; a wrong URL or certificate should not.
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
        .map_err(|e| CliError::new(format!("--log '{}' is no filter: {e}", args.log)).hint("such as 'info' or 'debug'"))
}

/// One thread is enough for a few small calls; the others are for computing.
fn runtime() -> Result<Runtime, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| CliError::new(format!("cannot start: {e}")))
}

fn config(args: &RunArgs) -> Result<AgentConfig, CliError> {
    let credentials = args.caller.credentials()?;
    let defaults = AgentConfig::new(args.coordinator.clone());
    Ok(AgentConfig { credentials, connect_timeout: args.connect_timeout, ..defaults })
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
    let end = end.map_err(|e| CliError::new(format!("cannot start: {e}")))?;
    runtime.shutdown_background();
    match end {
        End::Agent(Ok(Ended::Drained | Ended::ShutDown)) => Ok(ExitCode::SUCCESS),
        End::Agent(Err(error)) => Err(error.into()),
        End::Forced(signal) => Ok(ExitCode::from(128 + signal)),
    }
}

/// Runs the agent; a signal, or the end of the process above, shuts it down; a second signal leaves it behind.
async fn until_told(config: AgentConfig, evaluator: Box<dyn Evaluate>, supervised: bool) -> io::Result<End> {
    let mut signals = Signals::listen()?;
    let orphaned = async { if supervised { supervisor::orphaned().await } else { pending().await } };
    let (ask, asked) = oneshot::channel::<()>();
    let mut agent = pin!(agent::run(config, evaluator, async {
        if asked.await.is_err() {
            pending::<()>().await;
        }
    }));
    tokio::select! {
        ended = &mut agent => return Ok(End::Agent(ended)),
        _ = signals.next() => info!("shutting down; once more ends at once"),
        () = orphaned => info!("the process above has ended; shutting down"),
    }
    let _ = ask.send(());
    Ok(tokio::select! {
        ended = &mut agent => End::Agent(ended),
        signal = signals.next() => End::Forced(signal),
    })
}

/// Sees to it that rayon and candle start this many threads: goes on in a process that has the variables set which
/// both read. To set them here would be unsound, as any thread may be reading the environment; rayon's own pool could
/// be built with the number, candle's cannot.
///
/// `None`: this process has them. Where a process cannot replace itself, the exit code of the one that did the work.
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
    // Comes back only when it has failed.
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
    let (key, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is no label; write it like zone=a"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A bare number used to be MiB here and is bytes everywhere: nobody means so few.
fn device_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes < 1 << 20 {
        Err(format!("'{text}' would be {bytes} bytes; write a unit, such as 80GiB"))
    } else {
        Ok(bytes)
    }
}

impl From<AgentError> for CliError {
    fn from(error: AgentError) -> Self {
        let hint = match &error {
            AgentError::Url { .. } => Some("write it as https://HOST:PORT or http://HOST:PORT"),
            AgentError::Credentials(e) => Some(e.hint()),
            AgentError::Denied { .. } => {
                Some("give a token of role worker with --token-file FILE or in the variable EVOCACHE_TOKEN")
            }
            AgentError::Unreachable { last, .. } if last.contains("certificate") || last.contains("canceled") => Some(
                "name the authority that signed the coordinator's certificate with --ca FILE, and show one of your own \
                 with --client-cert and --client-key",
            ),
            AgentError::Unreachable { .. } => Some(
                "start one with `evocache serve`, name another with --coordinator, or wait longer with --connect-timeout",
            ),
            AgentError::Refused { .. } => Some("worker and coordinator should be of the same release"),
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
