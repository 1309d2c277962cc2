//! `serve`: an image server on one model.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use evocache_net::pace::Pace;
use evocache_net::signals::{Reloads, Signals};
use evocache_net::tls::TlsFiles;
use evocache_proto::units::{parse_bytes, parse_duration, parse_listen, parse_ratio};
use tracing::{info, warn};

use super::caller::CallerArgs;
use super::studio::StudioArgs;
use super::{CliError, Result, report};
use crate::evaluator::pipeline::Pipeline;
use crate::files::ModelError;
use crate::serve::{ServeError, ServeOptions, Server, Source, StudioOptions};

/// Serve pictures over HTTP, with OpenAI's images API
///
/// Listens at once, and takes requests when the model is loaded (/readyz). SIGTERM or Ctrl-C draws what waits and ends
/// with exit code 0; a second signal ends at once.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  evocache-worker serve --model worker/models/emoji --schedule best.json
  curl http://127.0.0.1:8188/v1/images/generations -H 'content-type: application/json' \\
      -d '{\"prompt\": \"an owl on a pink background\", \"seed\": 1}'")]
pub struct ServeArgs {
    /// The model and its schedule.
    #[command(flatten)]
    studio: StudioArgs,
    /// Address to listen on
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8188", value_parser = parse_listen)]
    listen: SocketAddr,
    /// Listen without TLS on an address that other machines reach
    #[arg(long)]
    allow_remote_plaintext: bool,
    /// Serve over TLS with this certificate (PEM)
    #[arg(long, env = "EVOCACHE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, env = "EVOCACHE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Require a client certificate of one of these authorities (PEM)
    #[arg(long, env = "EVOCACHE_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// Require a token of role client of this file (TOML); `evocache token new` makes its entries. SIGHUP reads it and the
    /// certificates again
    #[arg(long, env = "EVOCACHE_TOKENS", value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Pictures that each holder of a token, or each address if there are no tokens, may have a minute, and at once after a
    /// pause, such as 60:20. A token's own 'pictures' in the file of tokens comes before it [default: any number]
    #[arg(long, value_name = "PER_MINUTE:BURST")]
    pictures_per_minute: Option<Pace>,
    /// Follow a search of this coordinator: run its best schedule, and a better one as soon as there is one
    #[arg(long, value_name = "URL", requires = "search")]
    coordinator: Option<String>,
    /// Id of the search to follow
    #[arg(long, value_name = "ID", requires = "coordinator")]
    search: Option<String>,
    /// Least share kept of the uncached quality by the search's schedule, such as 98%
    #[arg(long, value_name = "SHARE", default_value = "98%", value_parser = parse_ratio)]
    min_quality_ratio: f64,
    /// Credentials for the coordinator; the token is of role reader.
    #[command(flatten)]
    caller: CallerArgs,
    /// Model name in the API [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Most pictures of one request
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    max_n: u32,
    /// Most pictures in a batch
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_batch: u16,
    /// How long an idle device waits for more pictures of a kind before it begins a batch that is not full
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    batch_wait: Duration,
    /// Most pictures that wait
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    queue: u16,
    /// Most pictures of one user that wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    queue_per_user: u16,
    /// Deadline of requests without the header x-deadline (seconds); a request that would miss it is refused at once
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    deadline: Duration,
    /// Memory for the encoded texts of recent prompts
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_bytes)]
    keep_texts: u64,
    /// Memory for pictures that were asked for with response_format url; the oldest leave first
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_bytes)]
    keep_pictures: u64,
    /// Most connections
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// How long a stop waits for requests that run and wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    drain: Duration,
}

impl ServeArgs {
    /// Runs the subcommand until a signal ends it. Blocks.
    pub fn run(&self) -> ExitCode {
        match self.serve() {
            Ok(code) => code,
            Err(error) => {
                report(&error);
                ExitCode::FAILURE
            }
        }
    }

    fn serve(&self) -> Result<ExitCode> {
        let _logging = self.studio.logging()?;
        let options = self.options()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|e| CliError::new(format!("cannot start the async runtime: {e}")))?;
        let code = runtime.block_on(until_told(options, self.studio.load()));
        runtime.shutdown_background();
        code
    }

    fn options(&self) -> Result<ServeOptions> {
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        if !self.listen.ip().is_loopback() {
            if tls.is_none() && !self.allow_remote_plaintext {
                return Err(CliError::new(format!("{} can be reached by other machines", self.listen))
                    .hint("give --tls-cert and --tls-key, or listen on 127.0.0.1, or give --allow-remote-plaintext"));
            }
            if self.tokens.is_none() && self.client_ca.is_none() {
                warn!("anybody who reaches {} may ask for pictures; use --tokens or --client-ca", self.listen);
            } else if tls.is_none() {
                warn!("tokens are sent to {} unencrypted, and anybody on the way can read them", self.listen);
            }
        }
        Ok(ServeOptions {
            listen: self.listen,
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key, client_ca: self.client_ca.clone() }),
            tokens: self.tokens.clone(),
            pace: self.pictures_per_minute,
            studio: StudioOptions {
                name: self.model_name.clone(),
                plan: self.studio.plan()?,
                defaults: self.studio.defaults(),
                device: self.studio.device,
                memory: self.studio.model.memory,
                batch: self.max_batch.into(),
                gather: self.batch_wait,
                queue: self.queue.into(),
                each: self.queue_per_user.into(),
                embeddings: self.keep_texts,
            },
            source: self.source()?,
            count: self.max_n,
            deadline: self.deadline,
            pictures: usize::try_from(self.keep_pictures).unwrap_or(usize::MAX),
            connections: self.connections.into(),
            drain: self.drain,
        })
    }
}

impl ServeArgs {
    /// The search to follow, checked without a connection.
    fn source(&self) -> Result<Option<Source>> {
        let Some((coordinator, search)) = self.coordinator.clone().zip(self.search.clone()) else { return Ok(None) };
        let credentials = self.caller.credentials()?;
        let source = Source { coordinator, credentials, search, min_quality_ratio: self.min_quality_ratio };
        let hint = "write --coordinator as https://HOST:PORT or http://HOST:PORT";
        source.check().map_err(|e| CliError::new(e.to_string()).hint(hint))?;
        Ok(Some(source))
    }
}

/// Serves until a signal, or until the device fails.
async fn until_told(
    options: ServeOptions,
    load: impl FnOnce() -> std::result::Result<Pipeline, ModelError> + Send + 'static,
) -> Result<ExitCode> {
    let failed = |e| CliError::new(format!("cannot install signal handlers: {e}"));
    let (mut signals, mut reloads) = (Signals::listen().map_err(failed)?, Reloads::listen().map_err(failed)?);
    let schedule = options.studio.plan.as_ref().map_or_else(|| "none".to_owned(), |plan| plan.schedule.id().short());
    let mut server = Server::start(options, load).await?;
    info!(address = %server.address(), schedule, "listening; the model is being loaded");
    tokio::select! {
        ready = server.ready() => ready?,
        _ = signals.next() => return Ok(ExitCode::SUCCESS),
    }
    info!(address = %server.address(), "ready");
    loop {
        tokio::select! {
            error = server.failed() => return Err(error.into()),
            () = reloads.next() => server.reload(),
            _ = signals.next() => break,
        }
    }
    info!("stopping when what waits is drawn; a second signal ends at once");
    tokio::select! {
        () = server.shutdown() => {
            info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        signal = signals.next() => Ok(ExitCode::from(128 + signal)),
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        let told = Self::new(error.to_string());
        match error {
            ServeError::Studio(error) => error.into(),
            ServeError::Tls(error) => told.hint(error.hint()),
            ServeError::Tokens(_) => told.hint("`evocache token new --role client` prints an entry for the file"),
            ServeError::Listen { .. } => told.hint("give another address with --listen"),
        }
    }
}
