//! The engine: the single writer of all state.
//!
//! Every command goes decide (pure) → one store transaction → apply → and, once that is durable, its answer. Commands
//! that arrive together share one flush to disk.
//!
//! **Architecture invariant:** nothing is answered before it is on disk, and after an error of the store memory is made anew of
//! what is stored.
//! Absent on purpose: gRPC, sled, and any clock but the [`Clock`](crate::ports::Clock) port.

mod actor;
mod advisers;
mod anew;
mod command;
mod decide;
mod evaluate;
mod extend;
mod grant;
mod handle;
mod judge;
mod meters;
mod roster;
mod search;
mod standing;
mod state;
mod transfer;
mod waiters;

pub use actor::{Engine, EngineError, EnginePanic, Settings, Work, open};
pub use advisers::Thinking;
pub use command::{Answer, Command, LeaseKey, Move, Offer, Refusal, Renewal, Request};
pub use decide::{Context, Decision, REQUEST_MEMORY, WORKER_MEMORY, decide};
pub use evaluate::HOPELESS_FAILURES;
pub use grant::LEASES_PER_WORKER;
pub use handle::{Change, Handle};
pub use meters::{Buckets, Counts, Histogram, Meters};
pub use search::{Candidate, Search};
pub use standing::Standing;
pub use state::{Inconsistent, State, Touch, Worker};
