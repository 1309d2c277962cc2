//! The engine: the single writer of all state.
//!
//! Every command goes decide (pure) → one store transaction → apply → flush → answer. Commands that arrive together share
//! one flush.
//!
//! | file | what it has |
//! |---|---|
//! | `command`, `refusal` | what the engine can be asked, what it answers and why it refuses |
//! | `state/` | the memory: what all facts add up to |
//! | `decision` | what every decision may look at and results in |
//! | `commands/` | a file for each command: state in, decision out |
//! | `repeats`, `decide` | the answers to repeated calls; the dispatcher over the commands |
//! | `handle`, `meters` | how others talk to the engine, what it counts |
//! | `actor/` | the thread: queue, store, waiting workers, planners, recovery |
//!
//! A file imports only from rows above its own, or from files below it in its folder.
//!
//! **Architecture invariant:** nothing is answered before it is on disk. After an error of the store, memory is rebuilt from
//! what is stored. The engine knows neither gRPC nor sled, and no clock but the [`Clock`](crate::ports::Clock) port.

mod actor;
mod command;
mod commands;
mod decide;
mod decision;
mod handle;
mod meters;
mod refusal;
mod repeats;
mod state;

pub use actor::{Engine, EngineError, EnginePanic, ModelFitting, Settings, Work, open};
pub use command::{Answer, Command, LeaseKey, Move, Offer, Renewal, Request};
pub use commands::{HOPELESS_FAILURES, REQUEST_MEMORY, WORKER_MEMORY};
pub use decide::decide;
pub use decision::{Context, Decision};
pub use handle::{Change, Handle};
pub use meters::{Buckets, Counts, Histogram, Meters};
pub use refusal::{LEASES_PER_WORKER, Refusal};
pub use state::{Bound, Candidate, Inconsistent, Search, Standing, State, Totals, Touch, Worker};
