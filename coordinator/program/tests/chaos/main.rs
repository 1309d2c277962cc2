//! What breaks, and what must hold all the same. Every test prints the seed that replays it.
//!
//! `invariants` names what must hold. It is held against ever more of the real thing: the pure decisions (`machine`), a
//! cluster on a simulated network (`simulation`), real processes behind a bad network (`proxy`), processes that are killed
//! (`kills`), their stores damaged afterwards (`damage`), a disk that is full for a while (`full`), one that forgets what
//! was not synced (`power`), a cluster whose workers die, dawdle and lie (`disturbed`). The tests that are marked `ignored`
//! are the same at full length; `CHAOS_SEED` and `CHAOS_ROUNDS` choose where they begin and how long they are:
//!
//! ```text
//! EVOCACHE_PLANT=faults cargo test -p evocache-program --test chaos -- --ignored --nocapture kills
//! cargo test -p evocache-program --test chaos -- --ignored --nocapture power
//! cargo test -p evocache-program --test chaos -- --ignored --nocapture damage
//! cargo test -p evocache-program --test chaos -- --ignored --nocapture simulation
//! cargo test -p evocache-program --test chaos -- --ignored --nocapture disturbed
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking and prints its seed; kills and power cuts happen in real time"
)]

mod crew;
mod damage;
mod disturbed;
#[cfg(target_os = "linux")]
mod full;
mod invariants;
mod kills;
mod ledger;
mod machine;
mod network;
#[cfg(target_os = "linux")]
mod power;
mod process;
mod proxy;
mod simulation;
mod toy;
