//! The worker's log on stderr, and where traces go.
//!
//! Absent on purpose: what is logged.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::CliError;
use super::run::RunArgs;

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// An object of JSON a line, for machines
    Json,
}

/// What has to be ended in order.
pub(super) struct Logging {
    #[cfg(feature = "otlp")]
    telemetry: Option<evocache_proto::telemetry::Telemetry>,
}

impl Logging {
    /// Starts both. Needs a runtime where traces are sent.
    pub(super) fn start(args: &RunArgs, filter: EnvFilter) -> Result<Self, CliError> {
        let format = fmt::layer().with_ansi(io::stderr().is_terminal()).with_target(false).with_writer(io::stderr);
        let format = match args.log_format {
            LogFormat::Json => format.with_ansi(false).with_target(true).json().flatten_event(true).boxed(),
            LogFormat::Text => format.boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(format.with_filter(filter));
        #[cfg(feature = "otlp")]
        {
            let telemetry = args.otlp_endpoint.as_deref().map(telemetry).transpose()?;
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
fn telemetry(endpoint: &str) -> Result<evocache_proto::telemetry::Telemetry, CliError> {
    let telemetry = evocache_proto::telemetry::Telemetry::start(endpoint, "evocache-worker", env!("CARGO_PKG_VERSION"));
    telemetry.map_err(|e| CliError::new(e.to_string()).hint("write --otlp-endpoint as http://HOST:4317"))
}
