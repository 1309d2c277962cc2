//! The command line as a person or a script meets it: the real binary, and a real coordinator over loopback.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod alone;
mod answers;
#[cfg(target_os = "linux")]
mod attackers;
#[cfg(unix)]
mod cluster;
mod coordinator;
#[cfg(all(unix, feature = "local"))]
mod devices;
mod explain;
mod hostile;
#[cfg(feature = "local")]
mod local;
mod schema;
mod searches;
mod security;
mod simulate;
mod store;
mod support;
#[cfg(feature = "local")]
mod traces;
mod transfer;
mod validate;
mod worker;
#[cfg(target_os = "linux")]
mod worst;
