//! The command line as clap sees it: the options of every verb, and the verbs. Arguments and help stand with each verb.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use evocache::cli::commands::{
    backup::BackupArgs, best::BestArgs, completions::CompletionsArgs, delete::DeleteArgs, down::DownArgs,
    drain::DrainArgs, explain::ExplainArgs, extend::ExtendArgs, front::FrontArgs, launch::LaunchArgs, list::ListArgs,
    pause::PauseArgs, resume::ResumeArgs, scale::ScaleArgs, serve::ServeArgs, show::ShowArgs, stop::StopArgs,
    store::StoreArgs, token::TokenArgs, validate::ValidateArgs, watch::WatchArgs, workers::WorkersArgs,
};
use evocache::cli::kit::global::{ABOUT_COORDINATOR, Global};
use evocache::simulate::SimulateArgs;
use evocache_proto::domain::SearchId;

#[cfg(feature = "local")]
use crate::local::{LocalArgs, WorkerArgs};

const AFTER: &str = "\
Examples:
  evocache local                           a whole search on this machine
  evocache serve --data /var/lib/evocache  a coordinator for workers and people
  evocache launch search.toml --watch      create a search and follow it
  evocache best my-search --min-quality-ratio 98%
                                           the fastest that keeps 98 %

Exit codes: 0 done, 1 failed, 2 wrong command line or specification,
3 not found or nothing satisfies, 130 Ctrl-C.";

/// Finds caching schedules that make diffusion transformers faster.
#[derive(Debug, Parser)]
#[command(name = "evocache", version, propagate_version = true, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs, in the order of the help.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[cfg(feature = "local")]
    Local(LocalArgs),
    Serve(ServeArgs),
    Store(StoreArgs),
    Backup(BackupArgs),
    Simulate(SimulateArgs),
    Launch(LaunchArgs),
    Scale(ScaleArgs),
    Down(DownArgs),
    List(ListArgs),
    Show(ShowArgs),
    Watch(WatchArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Extend(ExtendArgs),
    Stop(StopArgs),
    Delete(DeleteArgs),
    Front(FrontArgs),
    Best(BestArgs),
    Explain(ExplainArgs),
    Validate(ValidateArgs),
    Workers(WorkersArgs),
    Drain(DrainArgs),
    Token(TokenArgs),
    Completions(CompletionsArgs),
    /// One worker of `local`, which starts it; not meant for people
    #[cfg(feature = "local")]
    #[command(hide = true)]
    WorkerProcess(Box<WorkerArgs>),
}

impl Verb {
    /// The search that the verb is about.
    pub(crate) fn search(&self) -> Option<&SearchId> {
        let search = match self {
            Self::Scale(args) => &args.search,
            Self::Down(args) => &args.search,
            Self::Show(args) => &args.search,
            Self::Watch(args) => &args.search,
            Self::Pause(args) => &args.search,
            Self::Resume(args) => &args.search,
            Self::Stop(args) => &args.search,
            Self::Extend(args) => &args.search,
            Self::Delete(args) => &args.search,
            Self::Front(args) => &args.search,
            Self::Best(args) => &args.search,
            Self::Explain(args) => &args.search,
            Self::Validate(args) => &args.search,
            _ => return None,
        };
        Some(&search.id)
    }
}

/// Verbs that call no coordinator, or one of their own: they neither show nor take the options about a coordinator.
const ALONE: [&str; 9] =
    ["local", "worker-process", "serve", "store", "simulate", "scale", "down", "token", "completions"];

/// The command line as the help shows it.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command();
    // Propagates the global options to the verbs, where they can be hidden one by one.
    command.build();
    command.mut_subcommands(|verb| if ALONE.contains(&verb.get_name()) { hide_coordinator(verb) } else { verb })
}

fn hide_coordinator(verb: clap::Command) -> clap::Command {
    let hidden = |arg: clap::Arg| if ABOUT_COORDINATOR.contains(&arg.get_id().as_str()) { arg.hide(true) } else { arg };
    verb.mut_args(hidden).mut_subcommands(hide_coordinator)
}

/// Parses the command line of this process.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches()?;
    if let Some((verb, of_verb)) = matches.subcommand()
        && ALONE.contains(&verb)
        && verb != "worker-process"
        && let Some(flag) =
            ABOUT_COORDINATOR.iter().find(|id| of_verb.value_source(id) == Some(ValueSource::CommandLine))
    {
        let message = format!("--{} is for verbs that call a coordinator; '{verb}' does not", flag.replace('_', "-"));
        return Err(command().error(ErrorKind::UnknownArgument, message));
    }
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_fit_into_eighty_columns() {
        fn walk(command: &clap::Command) {
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn every_verb_has_a_line_in_the_help() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
    }
}
