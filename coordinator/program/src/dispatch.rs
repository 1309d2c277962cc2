//! Runs a verb: parses the command line, starts the log and the runtime, calls the verb's function, prints its failure.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use evocache::cli::commands::{
    backup, best, completions, delete, down, drain, explain, extend, front, launch, list, pause, resume, scale, serve,
    show, stop, store, token, validate, watch, workers,
};
use evocache::cli::kit::exit::{Exit, Failure};
use evocache::cli::kit::global::Global;
use evocache::cli::kit::names;
use evocache::cli::kit::printer::Printer;
use evocache::simulate;
use evocache_proto::domain::SearchId;
use evocache_proto::text::plain;

use crate::args::{Cli, Verb, command, parse};
#[cfg(feature = "local")]
use crate::local;
use crate::log;

/// Runs the command line of this process.
pub(crate) fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(error),
    };
    let printer = Printer::new(cli.global.json, cli.global.no_color);
    match dispatch(cli, printer) {
        Ok(code) => code,
        Err(failure) => {
            printer.failure(&failure);
            failure.exit.into()
        }
    }
}

/// Prints why the command line is wrong. Help and version come this way too, with exit code 0.
fn refuse(mut error: clap::Error) -> ExitCode {
    let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code());
    if code == 0 {
        return if error.print().is_ok() { code.into() } else { Exit::Failed.into() };
    }
    // The quoted parts may come from outside, through a script.
    let quoted: Vec<(ContextKind, String)> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, plain(text).into_owned())),
            _ => None,
        })
        .collect();
    for (kind, text) in quoted {
        error.insert(kind, ContextValue::String(text));
    }
    let message = error.render().to_string();
    let message = message.strip_prefix("error: ").unwrap_or(&message).trim_end();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Printer::new(false, no_color).failure(&Failure::usage(message));
    code.into()
}

fn dispatch(cli: Cli, printer: Printer) -> Result<ExitCode, Failure> {
    #[cfg(feature = "local")]
    if let Verb::WorkerProcess(args) = cli.verb {
        return Ok(local::worker_process(*args));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(format!("cannot start the runtime: {e}")))?;
    let logging = {
        let _inside = runtime.enter();
        log::start(&cli, printer)?
    };
    let exit = runtime.block_on(run(cli, printer));
    runtime.block_on(logging.end());
    Ok(exit?.into())
}

/// Runs the verb. If it names a search that does not exist, the failure suggests the nearest id.
async fn run(cli: Cli, printer: Printer) -> Result<Exit, Failure> {
    let Cli { global, verb } = cli;
    let id = verb.search().cloned();
    match (call(&global, verb, printer).await, id) {
        (Err(failure), Some(id)) if failure.exit == Exit::NotFound => Err(with_nearest(&global, &id, failure).await),
        (ended, _) => ended,
    }
}

async fn with_nearest(global: &Global, id: &SearchId, mut failure: Failure) -> Failure {
    let Ok(client) = global.connect().await else { return failure };
    let searches = client.searches().await.unwrap_or_default();
    if searches.iter().all(|search| search.id != *id) {
        failure.message += &names::did_you_mean(id.as_str(), searches.iter().map(|search| search.id.as_str()));
    }
    failure
}

async fn call(global: &Global, verb: Verb, printer: Printer) -> Result<Exit, Failure> {
    match verb {
        #[cfg(feature = "local")]
        Verb::Local(args) => local::run(args, printer).await,
        // Never reached: it has run before the runtime started.
        #[cfg(feature = "local")]
        Verb::WorkerProcess(_) => Ok(Exit::Ok),
        Verb::Serve(args) => serve::serve(args, printer).await,
        Verb::Store(args) => store::store(args, printer),
        Verb::Simulate(args) => simulate::run(args, printer).await,
        Verb::Backup(args) => backup::backup(&global.connect().await?, args, printer).await,
        Verb::Launch(args) => launch::launch(global, args, printer).await,
        Verb::Scale(args) => scale::scale(args, printer).await,
        Verb::Down(args) => down::down(args, printer).await,
        Verb::List(_) => list::list(&global.connect().await?, printer).await,
        Verb::Show(args) => show::show(&global.connect().await?, args, printer).await,
        Verb::Watch(args) => watch::watch(&global.connect().await?, &args.search.id, printer).await,
        Verb::Pause(args) => pause::pause(&global.connect().await?, args, printer).await,
        Verb::Resume(args) => resume::resume(&global.connect().await?, args, printer).await,
        Verb::Extend(args) => extend::extend(&global.connect().await?, args, printer).await,
        Verb::Stop(args) => stop::stop(&global.connect().await?, args, printer).await,
        Verb::Delete(args) => delete::delete(global, args, printer).await,
        Verb::Front(args) => front::front(&global.connect().await?, args, printer).await,
        Verb::Best(args) => best::best(&global.connect().await?, args, printer).await,
        Verb::Explain(args) => explain::explain(&global.connect().await?, args, printer).await,
        Verb::Validate(args) => validate::validate(global, args, printer).await,
        Verb::Workers(args) => workers::workers(&global.connect().await?, args, printer).await,
        Verb::Drain(args) => drain::drain(&global.connect().await?, args, printer).await,
        Verb::Token(args) => token::token(args, printer),
        Verb::Completions(args) => completions::completions(command(), &args, printer),
    }
}
