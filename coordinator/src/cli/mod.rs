//! The command line: what each verb takes, does and prints.
//!
//! ```text
//! kit  ←  results, spec, cluster  ←  commands
//! ```
//!
//! - [`kit`]: what every verb needs: printer, tables, units, exit codes, following, JSON views.
//! - [`results`]: the results of a search as tables, pictures and files.
//! - [`spec`]: specification files.
//! - [`cluster`]: what Slurm and Kubernetes are told.
//! - [`commands`]: one file or folder a verb, with its arguments, its help and its code.
//!
//! The program (`coordinator/program`) dispatches the verbs. A new verb needs a file under `commands`, a variant of the
//! program's `Verb`, and a call in the program's tests of hostile texts.
//!
//! **Invariant:** knows the coordinator by its gRPC API only, never engine, store or services. `serve` starts them through
//! [`crate::server`], and `store` works on a store through [`crate::upkeep`].

pub mod cluster;
pub mod commands;
pub mod kit;
pub mod results;
pub mod spec;
