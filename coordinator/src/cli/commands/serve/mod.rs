//! The verb `serve`: runs a coordinator until a signal or an error ends it.

mod guard;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use evocache_net::log::LogFormat;
use serde_json::json;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;
use crate::cli::kit::units::{parse_bytes, parse_duration, parse_listen};
use crate::server::{ServeError, ServeOptions, start};
use evocache_net::signals::{Reloads, interruption};

pub use guard::{GuardArgs, Limit, RateArgs};

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let failure = Self::new(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Run a coordinator
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  evocache serve
  evocache serve --listen localhost:0 --json    any free port, printed as JSON
  evocache serve --http 127.0.0.1:9464          with health and metrics
  evocache serve --listen 0.0.0.0:7447 --tls-cert cert.pem --tls-key key.pem \\
    --tokens tokens.toml                        for other machines

Ctrl-C or SIGTERM stops it; started again with the same --data it goes on where
it stopped. It reloads certificates and tokens when they change, and on SIGHUP;
a file with a mistake changes nothing.")]
pub struct ServeArgs {
    /// Address to listen on, as HOST:PORT; port 0 takes any free one
    #[arg(long, value_name = "ADDR", env = "EVOCACHE_LISTEN", default_value = "127.0.0.1:7447", value_parser = parse_listen)]
    pub listen: SocketAddr,
    /// Folder of the store
    #[arg(long, value_name = "DIR", env = "EVOCACHE_DATA", default_value = "evocache-data")]
    pub data: PathBuf,
    /// Space to keep free on the store's disk; with less, no new work is started
    #[arg(long, value_name = "SIZE", env = "EVOCACHE_RESERVE", default_value = "256MiB", value_parser = parse_bytes)]
    pub reserve: u64,
    /// Start on a store that has lost acknowledged results; the log says how many
    #[arg(long)]
    pub accept_loss: bool,
    /// How long a worker may be silent before another one gets its candidate
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub lease_ttl: Duration,
    /// Allow an address that other machines reach, without encryption
    #[arg(long)]
    pub allow_remote_plaintext: bool,
    /// Serve /healthz, /readyz, and /metrics for Prometheus, on this address [default: off]
    #[arg(long, value_name = "ADDR", env = "EVOCACHE_HTTP", value_parser = parse_listen)]
    pub http: Option<SocketAddr>,
    /// Send traces over gRPC to this OTLP collector, such as http://127.0.0.1:4317 [default: off]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Format of the log on stderr
    #[arg(long, value_enum, value_name = "FORMAT", env = "EVOCACHE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Authentication and rate limits.
    #[command(flatten)]
    pub guard: GuardArgs,
}

/// Runs the verb.
pub async fn serve(args: ServeArgs, printer: Printer) -> Result<Exit, Failure> {
    let failed = |e| Failure::new(format!("cannot listen for signals: {e}"));
    let interrupted = interruption().map_err(failed)?;
    let mut reloads = Reloads::listen().map_err(failed)?;
    // A log in JSON stands alone on stderr, and it says the same.
    let has_notes = args.log_format == LogFormat::Text;
    let mut running = start(ServeOptions {
        listen: args.listen,
        data: args.data.clone(),
        reserve: args.reserve,
        accept_loss: args.accept_loss,
        lease_ttl: args.lease_ttl,
        allow_remote_plaintext: args.allow_remote_plaintext,
        http: args.http,
        security: args.guard.into(),
    })
    .await?;
    let url = running.url();
    let http = running.http_addr().map(|address| format!("http://{address}"));
    if let Some(http) = http.as_ref().filter(|_| has_notes && !printer.is_json()) {
        printer.note(&format!("health and metrics at {http}"));
    }
    if printer.is_json() {
        printer.json_line(&json!({ "url": url, "data": args.data, "http": http }))?;
    } else if has_notes {
        printer.note(&format!("coordinator at {url}, store in {}; Ctrl-C stops it", args.data.display()));
    }
    let mut interrupted = std::pin::pin!(interrupted);
    let fatal = loop {
        tokio::select! {
            () = &mut interrupted => break None,
            fatal = running.failed() => break Some(fatal),
            () = reloads.next() => {}
        }
        running.reload();
    };
    if has_notes {
        printer.note("stopping");
    }
    let stopped = running.shutdown().await;
    if let Some(fatal) = fatal {
        return Err(Failure::new(&fatal).hint("every acknowledged change is on disk: start the coordinator again"));
    }
    stopped.map_err(|panic| Failure::new(&panic))?;
    // A signal is the normal way to end a server, so the exit code is 0 whichever it was.
    Ok(Exit::Ok)
}
