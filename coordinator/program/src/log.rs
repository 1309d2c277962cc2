//! What the program logs, and where a server sends its spans.

use evocache::cli::kit::exit::Failure;
use evocache::cli::kit::printer::Printer;
use evocache_net::log::{LogFormat, LogOptions, Logging};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Verb};

/// Starts the log: warnings only, more with `--verbose`; a server also logs what it does.
pub(crate) fn start(cli: &Cli, printer: Printer) -> Result<Logging, Failure> {
    let server = if let Verb::Serve(args) = &cli.verb { Some(args) } else { None };
    let filter = match cli.global.verbose + u8::from(server.is_some()) {
        0 => "warn",
        1 => "warn,evocache=info,evocache_net=info,audit=info",
        2 => "info,evocache=debug,evocache_net=debug,audit=debug",
        _ => "debug,evocache=trace,evocache_net=trace",
    };
    let options = LogOptions {
        filter: EnvFilter::new(filter),
        format: server.map_or(LogFormat::Text, |args| args.log_format),
        no_color: !printer.has_color(),
        prefix: None,
        collector: server.and_then(|args| args.otlp_endpoint.clone()).map(|endpoint| {
            evocache_net::telemetry::Collector { endpoint, service: "evocache", version: env!("CARGO_PKG_VERSION") }
        }),
    };
    Logging::start(options).map_err(|e| {
        Failure::usage(e).hint("write --otlp-endpoint as http://HOST:4317, in a build with the feature otlp")
    })
}
