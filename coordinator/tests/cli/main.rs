//! The command line as a person or a script meets it: the real binary, and a real coordinator over loopback.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod alone;
mod answers;
mod coordinator;
#[cfg(feature = "local")]
mod local;
mod searches;
mod support;
mod worker;
