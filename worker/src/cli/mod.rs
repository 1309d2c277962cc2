//! The subcommands of the binary: [`run`], which works for a coordinator, and `serve`, `batch`, `generate`, `inspect`,
//! `bench`, `blocks`, `check` and `score`, which need none.
//!
//! Each is a struct of arguments with a method `run`, which writes data to the given writer (stdout) and returns errors
//! to `main`, which writes them to stderr with their hints.

#[cfg(feature = "serve")]
mod batch;
mod bench;
mod blocks;
mod caller;
mod check;
mod denoising;
mod error;
mod fit;
mod generate;
mod inspect;
pub mod metrics;
mod model;
mod parts;
mod pictures;
mod prompts;
pub mod run;
mod sampler;
mod schedule;
mod score;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod studio;
mod supervisor;
mod table;

#[cfg(feature = "serve")]
pub use batch::BatchArgs;
pub use bench::Bench;
pub use blocks::Blocks;
pub use check::Check;
pub use error::{CliError, Result, report};
pub use generate::Generate;
pub use inspect::Inspect;
pub use score::Score;
#[cfg(feature = "serve")]
pub use serve::ServeArgs;
