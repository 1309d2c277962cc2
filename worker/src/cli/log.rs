//! The worker's log on stderr, and where traces go.
//!
//! Absent on purpose: what is logged.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use evocache_proto::text;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
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
    /// Starts both. Needs a runtime where traces are sent. Each line carries the device, where one is given.
    #[expect(clippy::disallowed_methods, reason = "both writers spell out what is not to act on a terminal")]
    pub(super) fn start(args: &RunArgs, filter: EnvFilter, device: Option<String>) -> Result<Self, CliError> {
        let colors = io::stderr().is_terminal();
        let format = match args.log_format {
            LogFormat::Json => {
                let inner = fmt::format().json().flatten_event(true);
                let lines = fmt::layer().with_ansi(false).with_writer(|| text::Json(io::stderr()));
                lines.json().event_format(OfDevice { device, inner, json: true }).boxed()
            }
            LogFormat::Text => {
                let inner = fmt::format().with_target(false);
                let lines = fmt::layer().with_ansi(colors);
                let lines = lines.with_writer(move || text::LogLines { to: io::stderr(), colors });
                lines.event_format(OfDevice { device, inner, json: false }).boxed()
            }
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

/// Lines that begin with a device: several processes write to one stderr.
struct OfDevice<F> {
    device: Option<String>,
    inner: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for OfDevice<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let Some(device) = &self.device else { return self.inner.format_event(context, writer, event) };
        if !self.json {
            write!(writer, "{device} ")?;
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            // A device's name has nothing that JSON escapes.
            Some(rest) => write!(writer, "{{\"device\":\"{device}\",{rest}"),
            None => writer.write_str(&line),
        }
    }
}

#[cfg(feature = "otlp")]
fn telemetry(endpoint: &str) -> Result<evocache_proto::telemetry::Telemetry, CliError> {
    let telemetry = evocache_proto::telemetry::Telemetry::start(endpoint, "evocache-worker", env!("CARGO_PKG_VERSION"));
    telemetry.map_err(|e| CliError::new(e.to_string()).hint("write --otlp-endpoint as http://HOST:4317"))
}
