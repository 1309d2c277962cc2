//! What the verbs share. Each file is one idea and knows no verb.
//!
//! - [`exit`]: exit codes, and failures with a hint;
//! - [`printer`]: the one writer to stdout and stderr;
//! - [`table`], [`units`], [`progress`], [`counter`]: text for people;
//! - [`view`]: answers as JSON;
//! - [`caller`], [`global`]: credentials, the options of every verb, and the connection that they describe;
//! - [`search`]: the argument that names a search, and phrases about searches;
//! - [`names`]: mistyped names;
//! - [`follow`]: waiting for a search, or for Ctrl-C.

pub mod caller;
pub mod counter;
pub mod exit;
pub mod follow;
pub mod global;
pub mod names;
pub mod printer;
pub mod progress;
pub mod search;
pub mod table;
pub mod units;
pub mod view;

#[cfg(test)]
pub(crate) mod samples;
