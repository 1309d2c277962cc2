//! The verb `completions`: prints a completion script.

use clap::Args;

use crate::cli::kit::exit::{Exit, Failure};
use crate::cli::kit::printer::Printer;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  evocache completions bash > /etc/bash_completion.d/evocache")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Runs the verb; `command` is the whole command line.
pub fn completions(mut command: clap::Command, args: &CompletionsArgs, printer: Printer) -> Result<Exit, Failure> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut command, "evocache", &mut script);
    printer.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
