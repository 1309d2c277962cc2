//! The coordinator's parts together: engine, stores, services. One program, so that it is linked once.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod backup;
mod common;
mod disk;
mod engine;
mod extend;
mod http;
mod identity;
mod limits;
mod plausible;
mod quarantine;
mod reload;
mod security;
mod services;
mod store;
mod strangers;
mod upkeep;
