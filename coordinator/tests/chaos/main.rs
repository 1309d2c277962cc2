//! What breaks, and what must hold all the same. Every test prints the seed that replays it.
//!
//! `invariants` names what must hold; `machine`, `kills` and `power` use it against ever more of the real thing: the pure
//! decisions, real processes that are killed, a disk that forgets what was not synced. The tests that are marked
//! `ignored` are the same at full length:
//!
//! ```text
//! cargo test -p evocache --features faults --test chaos -- --ignored --nocapture kills
//! cargo test -p evocache --test chaos -- --ignored --nocapture power
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and prints its seed; kills and power cuts happen in real time"
)]

mod crew;
mod invariants;
mod kills;
mod ledger;
mod machine;
#[cfg(target_os = "linux")]
mod power;
mod process;
mod simulation;
mod toy;
