//! The command line: what each verb takes, does and prints.
//!
//! ```text
//! kit  ←  results, spec  ←  commands
//! ```
//!
//! - [`kit`]: what every verb needs: printer, tables, units, exit codes, following, JSON views.
//! - [`results`]: the results of a search as tables, pictures and files.
//! - [`spec`]: specification files.
//! - [`commands`]: one file or folder a verb, with its arguments, its help and its code.
//!
//! The program puts the verbs together and dispatches them. To add a verb: a file under `commands`, a variant of the
//! program's `Verb`, and a call in the tests of hostile texts.
//!
//! **Invariant:** knows the coordinator by its gRPC API only, never engine, store or services. `serve` starts them through
//! [`crate::serve`], and `store` works on a store through [`crate::upkeep`].

pub mod commands;
pub mod kit;
pub mod results;
pub mod spec;

#[cfg(feature = "server")]
mod args;
#[cfg(feature = "server")]
mod dispatch;
#[cfg(feature = "server")]
mod log;

#[cfg(feature = "server")]
pub use dispatch::main;
