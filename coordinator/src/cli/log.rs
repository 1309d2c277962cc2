//! The log on stderr, and where traces go.
//!
//! Absent on purpose: what is logged. Nothing here, and nowhere else, is there a way to log a token or a prompt.

use evocache_proto::text;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

#[cfg(feature = "server")]
use super::args::Verb;
use super::args::{Cli, LogFormat};
use super::exit::Failure;
use super::printer::Printer;

/// What has to be ended in order.
pub(super) struct Logging {
    #[cfg(feature = "otlp")]
    telemetry: Option<evocache_proto::telemetry::Telemetry>,
}

impl Logging {
    /// Warnings only, unless asked for more; a server tells what it does. Needs a runtime where traces are sent.
    #[expect(clippy::disallowed_methods, reason = "both writers spell out what is not to act on a terminal")]
    pub(super) fn start(cli: &Cli, printer: Printer) -> Result<Self, Failure> {
        #[cfg(feature = "server")]
        let server = if let Verb::Serve(args) = &cli.verb { Some(args) } else { None };
        #[cfg(not(feature = "server"))]
        let server: Option<&super::args::ServeArgs> = None;
        let filter = match cli.global.verbose + u8::from(server.is_some()) {
            0 => "warn",
            1 => "warn,evocache=info,audit=info",
            2 => "info,evocache=debug,audit=debug",
            _ => "debug,evocache=trace",
        };
        let colors = printer.has_color();
        let format = match server.map(|args| args.log_format) {
            // With the target: that a line is the audit's must be told by more than its fields.
            Some(LogFormat::Json) => fmt::layer()
                .json()
                .flatten_event(true)
                .with_ansi(false)
                .with_writer(|| text::Json(std::io::stderr()))
                .boxed(),
            Some(LogFormat::Text) | None => fmt::layer()
                .with_ansi(colors)
                .with_target(false)
                .with_writer(move || text::LogLines { to: std::io::stderr(), colors })
                .boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(format.with_filter(EnvFilter::new(filter)));
        #[cfg(feature = "otlp")]
        {
            let endpoint = server.and_then(|args| args.otlp_endpoint.as_deref());
            let telemetry = endpoint.map(telemetry).transpose()?;
            let spans = telemetry.as_ref().map(evocache_proto::telemetry::Telemetry::layer);
            // Only a second subscriber could make this fail, and then there is one.
            let _ = subscriber.with(spans).try_init();
            Ok(Self { telemetry })
        }
        #[cfg(not(feature = "otlp"))]
        {
            // Only a second subscriber could make this fail, and then there is one.
            let _ = subscriber.try_init();
            Ok(Self {})
        }
    }

    /// Sends what is left.
    pub(super) async fn end(self) {
        #[cfg(feature = "otlp")]
        if let Some(telemetry) = self.telemetry {
            telemetry.shutdown().await;
        }
    }
}

#[cfg(feature = "otlp")]
fn telemetry(endpoint: &str) -> Result<evocache_proto::telemetry::Telemetry, Failure> {
    let telemetry = evocache_proto::telemetry::Telemetry::start(endpoint, "evocache", env!("CARGO_PKG_VERSION"));
    telemetry.map_err(|e| Failure::usage(e).hint("write --otlp-endpoint as http://HOST:4317"))
}
