//! The gRPC services: read a message, hand a command or a question to the engine, encode the answer.
//!
//! **Invariant:** decides nothing. What a command does is the engine's, and what an answer contains is the domain's.

mod best;
mod encode;
mod fleet;
mod page;
mod router;
mod searches;
mod services;
mod stores;
mod trace;
mod watches;
mod workers;

pub use router::{router, server};
pub use services::Services;
pub use trace::{Spans, Traced};
