//! The command line: clap types ([`args`]) in, one function per verb, one [`printer`] out.
//!
//! Knows the coordinator by its gRPC API only. Absent on purpose: engine, store and services; `serve` starts them
//! through `crate::server`, `local` through `crate::local`, `store` looks after a store through `crate::upkeep`, and
//! `simulate` stands in `crate::simulate`.

pub mod args;
pub mod exit;
pub mod printer;
pub mod progress;
pub mod results;
pub mod security_args;
pub mod signals;
pub mod spec;
pub mod table;
pub mod units;
pub mod view;

mod answers;
#[cfg(feature = "server")]
mod backup;
mod conditions;
mod explain;
mod fleet;
mod follow;
mod imported;
mod insight;
mod log;
pub(crate) mod names;
mod prompts;
#[cfg(test)]
pub(crate) mod samples;
mod searches;
#[cfg(feature = "server")]
mod serve;
#[cfg(feature = "server")]
pub mod store;
mod token;
mod validate;

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use evocache_proto::domain::SearchId;
use evocache_proto::text::plain;

use args::{Cli, Global, Verb};
use exit::{Exit, Failure};
use printer::Printer;

use crate::client::{Client, ConnectOptions};

pub use follow::{Followed, Told, follow};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(mut error) => {
            // Help and version come this way too, with exit code 0.
            let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code());
            if code == 0 {
                return if error.print().is_ok() { code.into() } else { Exit::Failed.into() };
            }
            // What is quoted of the command line may come from a script, and so from anybody.
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
            let told = error.render().to_string();
            let told = told.strip_prefix("error: ").unwrap_or(&told).trim_end();
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            Printer::new(false, no_color).failure(&Failure::usage(told));
            return code.into();
        }
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

/// Verbs that call no coordinator of the user's: flags about one are neither shown nor taken there.
const ALONE: [&str; 7] = ["local", "worker-process", "serve", "store", "simulate", "token", "completions"];
/// Those flags, as fields of [`Global`].
const CALLER: [&str; 5] = ["coordinator", "ca", "client_cert", "client_key", "token_file"];

/// The command line as it is shown.
fn command() -> clap::Command {
    let mut command = Cli::command();
    // Flags of every verb are given to the verbs here, and so can be hidden.
    command.build();
    command.mut_subcommands(|verb| if ALONE.contains(&verb.get_name()) { hide_caller(verb) } else { verb })
}

fn hide_caller(verb: clap::Command) -> clap::Command {
    let hidden = |arg: clap::Arg| if CALLER.contains(&arg.get_id().as_str()) { arg.hide(true) } else { arg };
    verb.mut_args(hidden).mut_subcommands(hide_caller)
}

fn parse() -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches()?;
    if let Some((verb, of_verb)) = matches.subcommand()
        && ALONE.contains(&verb)
        && verb != "worker-process"
        && let Some(flag) = CALLER.iter().find(|id| of_verb.value_source(id) == Some(ValueSource::CommandLine))
    {
        let message = format!("--{} is for verbs that call a coordinator; '{verb}' does not", flag.replace('_', "-"));
        return Err(command().error(clap::error::ErrorKind::UnknownArgument, message));
    }
    Cli::from_arg_matches(&matches)
}

fn dispatch(cli: Cli, printer: Printer) -> Result<ExitCode, Failure> {
    #[cfg(feature = "local")]
    if let Verb::WorkerProcess(args) = cli.verb {
        return Ok(crate::local::worker_process(args));
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

/// Runs the verb; where there is no such search, says which was meant.
async fn run(cli: Cli, printer: Printer) -> Result<Exit, Failure> {
    let (global, wanted) = (cli.global.clone(), cli.verb.search().cloned());
    match (verb(cli, printer).await, wanted) {
        (Err(failure), Some(id)) if failure.exit == Exit::NotFound => Err(meant(&global, &id, failure).await),
        (ended, _) => ended,
    }
}

async fn meant(global: &Global, id: &SearchId, mut failure: Failure) -> Failure {
    let Ok(client) = connect(global).await else { return failure };
    let searches = client.searches().await.unwrap_or_default();
    if searches.iter().all(|search| search.id != *id) {
        failure.message += &names::did_you_mean(id.as_str(), searches.iter().map(|search| search.id.as_str()));
    }
    failure
}

async fn verb(cli: Cli, printer: Printer) -> Result<Exit, Failure> {
    let global = &cli.global;
    match cli.verb {
        #[cfg(feature = "local")]
        Verb::Local(args) => crate::local::run(args, printer).await,
        #[cfg(feature = "local")]
        Verb::WorkerProcess(_) => Ok(Exit::Ok),
        #[cfg(feature = "server")]
        Verb::Serve(args) => serve::serve(args, printer).await,
        #[cfg(feature = "server")]
        Verb::Store(args) => store::run(args.verb, printer),
        #[cfg(feature = "server")]
        Verb::Simulate(args) => crate::simulate::run(args, printer).await,
        #[cfg(feature = "server")]
        Verb::Backup(args) => backup::backup(&connect(global).await?, args, printer).await,
        Verb::Launch(args) => searches::launch(global, args, printer).await,
        Verb::List => searches::list(&connect(global).await?, printer).await,
        Verb::Show(args) => searches::show(&connect(global).await?, &args.id, printer).await,
        Verb::Watch(args) => searches::watch(&connect(global).await?, &args.id, printer).await,
        Verb::Pause(args) => searches::pause(&connect(global).await?, &args.id, printer).await,
        Verb::Resume(args) => searches::resume(&connect(global).await?, &args.id, printer).await,
        Verb::Extend(args) => searches::extend(&connect(global).await?, args, printer).await,
        Verb::Stop(args) => searches::stop(&connect(global).await?, &args.id, printer).await,
        Verb::Delete(args) => searches::delete(global, args, printer).await,
        Verb::Front(args) => answers::front(&connect(global).await?, args, printer).await,
        Verb::Best(args) => answers::best(&connect(global).await?, args, printer).await,
        Verb::Explain(args) => explain::explain(&connect(global).await?, args, printer).await,
        Verb::Validate(args) => validate::validate(global, args, printer).await,
        Verb::Workers(args) => fleet::workers(&connect(global).await?, args.all, printer).await,
        Verb::Drain(args) => fleet::drain(&connect(global).await?, &args.worker, printer).await,
        Verb::Token(verb) => token::token(verb, printer),
        Verb::Completions(args) => completions(args.shell, printer),
    }
}

async fn connect(global: &Global) -> Result<Client, Failure> {
    let credentials = global.caller.credentials()?;
    let options = ConnectOptions { credentials, ..ConnectOptions::default() };
    Ok(Client::connect_with(&global.coordinator, options).await?)
}

fn completions(shell: clap_complete::Shell, printer: Printer) -> Result<Exit, Failure> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut command(), "evocache", &mut script);
    printer.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
