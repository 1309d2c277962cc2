//! The binary `evocache-worker`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use evocache_proto::text::Lines;
use evocache_worker::allocator;
use evocache_worker::cli::run::{RunArgs, run};
#[cfg(feature = "serve")]
use evocache_worker::cli::{BatchArgs, ServeArgs};
use evocache_worker::cli::{Bench, Blocks, Check, Generate, Inspect, Score, report};
use evocache_worker::evaluator::threads::compute_here;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// Run caching schedules on a diffusion transformer and measure them
#[derive(Debug, Parser)]
#[command(name = "evocache-worker", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(RunArgs),
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    #[cfg(feature = "serve")]
    Batch(BatchArgs),
    Generate(Generate),
    Inspect(Inspect),
    Bench(Bench),
    Blocks(Blocks),
    Check(Check),
    Score(Score),
}

#[expect(clippy::disallowed_methods, reason = "`Lines` escapes control characters")]
fn main() -> ExitCode {
    allocator::keep_pages();
    let cli = Cli::parse();
    // In these, this thread waits for others while another one computes.
    match &cli.verb {
        Verb::Run(args) => return run(args.clone()),
        #[cfg(feature = "serve")]
        Verb::Serve(args) => return args.run(),
        #[cfg(feature = "serve")]
        Verb::Batch(args) => return args.run(),
        _ => compute_here(),
    }
    let mut out = Lines(std::io::stdout().lock());
    let result = match &cli.verb {
        Verb::Run(args) => return run(args.clone()),
        #[cfg(feature = "serve")]
        Verb::Serve(args) => return args.run(),
        #[cfg(feature = "serve")]
        Verb::Batch(args) => return args.run(),
        Verb::Generate(verb) => verb.run(&mut out),
        Verb::Inspect(verb) => verb.run(&mut out),
        Verb::Bench(verb) => verb.run(&mut out),
        Verb::Blocks(verb) => verb.run(&mut out),
        Verb::Check(verb) => verb.run(&mut out),
        Verb::Score(verb) => verb.run(&mut out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}
