//! The verb that runs a coordinator.

use serde_json::json;

use super::args::ServeArgs;
use super::exit::{Exit, Failure};
use super::printer::Printer;
use super::signals;
use crate::serve::{ServeError, ServeOptions, start};

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let failure = Self::new(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

pub(super) async fn serve(args: ServeArgs, printer: Printer) -> Result<Exit, Failure> {
    let interrupted = signals::interruption().map_err(|e| Failure::new(format!("cannot listen for Ctrl-C: {e}")))?;
    let running = start(ServeOptions {
        listen: args.listen,
        data: args.data.clone(),
        lease_ttl: args.lease_ttl,
        allow_remote_plaintext: args.allow_remote_plaintext,
    })
    .await?;
    let url = format!("http://{}", running.local_addr());
    if printer.is_json() {
        printer.json_line(&json!({ "url": url, "data": args.data }))?;
    } else {
        printer.note(&format!("coordinator at {url}, store in {}; Ctrl-C stops it", args.data.display()));
    }
    interrupted.await;
    printer.note("stopping");
    running.shutdown().await;
    // Being asked to end is how a server ends; that is no failure, whatever the signal.
    Ok(Exit::Ok)
}
