//! The verb that runs a coordinator.

use serde_json::json;

use evocache_net::log::LogFormat;

use super::args::ServeArgs;
use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::security_args::GuardArgs;
use super::signals::{Reloads, interruption};
use crate::server::{Quotas, Security, ServeError, ServeOptions, TlsFiles, start};

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let failure = Self::new(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<GuardArgs> for Security {
    fn from(args: GuardArgs) -> Self {
        // clap has seen to it that the two come together.
        let tls = args.tls_cert.zip(args.tls_key);
        let client_ca = args.client_ca;
        let limits = args.limits;
        Self {
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key, client_ca }),
            tokens: args.tokens,
            reload_every: args.reload_every,
            quotas: Quotas {
                changes: limits.changes.0,
                reads: limits.reads.0,
                workers: limits.workers.0,
                strangers: limits.strangers.0,
            },
            connections: limits.connections,
        }
    }
}

pub(super) async fn serve(args: ServeArgs, printer: Printer) -> Result<Exit, Failure> {
    let failed = |e| Failure::new(format!("cannot listen for signals: {e}"));
    let interrupted = interruption().map_err(failed)?;
    let mut reloads = Reloads::listen().map_err(failed)?;
    // A log for machines has nothing beside it on stderr; it tells the same.
    let talks = args.log_format == LogFormat::Text;
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
    if let Some(http) = http.as_ref().filter(|_| talks && !printer.is_json()) {
        printer.note(&format!("health and metrics at {http}"));
    }
    if printer.is_json() {
        printer.json_line(&json!({ "url": url, "data": args.data, "http": http }))?;
    } else if talks {
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
    if talks {
        printer.note("stopping");
    }
    let stopped = running.shutdown().await;
    if let Some(fatal) = fatal {
        return Err(Failure::new(&fatal).hint("what was answered is on disk: start the coordinator again"));
    }
    stopped.map_err(|panic| Failure::new(&panic))?;
    // Being asked to end is how a server ends; that is no failure, whatever the signal.
    Ok(Exit::Ok)
}
