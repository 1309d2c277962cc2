//! The verbs: each file or folder holds one verb's arguments, help and code.
//!
//! A verb's function takes what it needs (a connected client, or the global options to connect later), its arguments and
//! the printer, and returns the exit code. A verb may call another one below it: `launch --watch` calls [`watch`].

#[cfg(feature = "server")]
pub mod backup;
#[cfg(feature = "server")]
mod backup_file;
pub mod best;
pub mod completions;
pub mod delete;
pub mod down;
pub mod drain;
pub mod explain;
pub mod extend;
pub mod front;
pub mod launch;
pub mod launch_on;
pub mod list;
pub mod pause;
pub mod resume;
pub mod scale;
#[cfg(feature = "server")]
pub mod serve;
pub mod show;
pub mod stop;
#[cfg(feature = "server")]
pub mod store;
pub mod token;
pub mod validate;
pub mod watch;
pub mod workers;
