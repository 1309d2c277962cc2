//! One file for each command or family of commands. Each is a pure function: state, command and time in, decision out.
//!
//! `lease` and `ending` have what several commands share; `judge` and `transfer` are steps of `tick` and `create`.

pub(super) mod acquire;
pub(super) mod change;
pub(super) mod complete;
pub(super) mod create;
mod ending;
pub(super) mod extend;
pub(super) mod fail;
mod judge;
mod lease;
pub(super) mod register;
pub(super) mod release;
pub(super) mod renew;
pub(super) mod tick;
pub(super) mod tidy;
mod transfer;

pub use ending::HOPELESS_FAILURES;
pub use tidy::{REQUEST_MEMORY, WORKER_MEMORY};
