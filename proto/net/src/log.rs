//! Sets up a process's log on stderr and the export of its spans.
//!
//! **Invariant:** both formats escape control characters, so that no text from outside acts on a terminal.

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

use crate::telemetry::{Collector, Telemetry, TelemetryError};

/// How a log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line, for machines
    Json,
}

/// What a process logs, in which format, and where it sends spans.
#[derive(Debug, Default)]
pub struct LogOptions {
    /// Which events are logged.
    pub filter: EnvFilter,
    /// The format of a line.
    pub format: LogFormat,
    /// Writes no colors, even to a terminal.
    pub no_color: bool,
    /// What each line starts with, if several processes write to one stderr. Must not need escaping in JSON.
    pub prefix: Option<String>,
    /// The collector that receives spans; `None`: spans are not sent.
    pub collector: Option<Collector>,
}

/// A running log. Call [`end`](Self::end) to send the last spans.
#[derive(Default)]
pub struct Logging {
    telemetry: Option<Telemetry>,
}

impl Logging {
    /// Starts the log of this process. Must be called inside a tokio runtime if spans are sent.
    ///
    /// # Errors
    ///
    /// When the collector's address is malformed, or this build cannot send spans.
    #[expect(clippy::disallowed_methods, reason = "both writers escape what would act on a terminal")]
    pub fn start(options: LogOptions) -> Result<Self, TelemetryError> {
        let LogOptions { filter, format, no_color, prefix, collector } = options;
        let colors = !no_color && io::stderr().is_terminal();
        let lines = match format {
            // Includes the target, which distinguishes the lines of the audit log.
            LogFormat::Json => {
                let inner = fmt::format().json().flatten_event(true);
                let lines = fmt::layer().with_ansi(false).with_writer(|| text::Json(io::stderr()));
                lines.json().event_format(Prefixed { prefix, inner, json: true }).boxed()
            }
            LogFormat::Text => {
                let inner = fmt::format().with_target(false);
                let lines = fmt::layer().with_ansi(colors);
                let lines = lines.with_writer(move || text::LogLines { to: io::stderr(), colors });
                lines.event_format(Prefixed { prefix, inner, json: false }).boxed()
            }
        };
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
        let telemetry = collector.map(|collector| Telemetry::start(&collector)).transpose()?;
        let spans = telemetry.as_ref().map(Telemetry::layer);
        // An error means that the process already has a subscriber, which then stays in use.
        let _ = subscriber.with(spans).try_init();
        Ok(Self { telemetry })
    }

    /// Sends the remaining spans.
    pub async fn end(self) {
        if let Some(telemetry) = self.telemetry {
            telemetry.shutdown().await;
        }
    }
}

/// Writes events in another format, after a prefix if there is one.
struct Prefixed<F> {
    prefix: Option<String>,
    inner: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Prefixed<F>
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
        let Some(prefix) = &self.prefix else { return self.inner.format_event(context, writer, event) };
        if !self.json {
            write!(writer, "{prefix} ")?;
            return self.inner.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{{\"device\":\"{prefix}\",{rest}"),
            None => writer.write_str(&line),
        }
    }
}
