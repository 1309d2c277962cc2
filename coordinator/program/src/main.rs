//! The program `evocache`: puts the verbs of the library and, with the feature `local`, the workers together.
//!
//! - `args`: the command line, a variant a verb;
//! - `dispatch`: runs a verb;
//! - `log`: what is logged;
//! - `local`: coordinator and workers on this machine.
//!
//! A crate of its own, so that the library `evocache` and candle, which only the workers need, compile side by side.

mod args;
mod dispatch;
#[cfg(feature = "local")]
mod local;
mod log;

/// `local` runs its workers as copies of this program, and they must measure what `evocache-worker` would.
#[cfg(feature = "local")]
#[global_allocator]
static ALLOCATOR: evocache_worker::allocator::Allocator = evocache_worker::allocator::Allocator;

fn main() -> std::process::ExitCode {
    dispatch::main()
}
