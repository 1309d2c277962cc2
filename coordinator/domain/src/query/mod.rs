//! The best schedule for a question: a pure function of all results so far.
//!
//! [`answer()`] resolves the question's constraints into [`Condition`]s on the search's metrics, adds the bounds of the
//! objectives unless the question ignores them, and chooses from the front of latency ratio and quality. That is not the
//! front of the search's own objectives: a search for multiply-accumulates still answers a question about latency.
//!
//! Does not read messages or send answers: that is the server's.

mod answer;
mod choice;
mod condition;

pub use answer::{Answer, Best, Miss, QuestionError, Snapshot, answer};
pub use condition::{Condition, SPEEDUP};

#[cfg(test)]
mod tests;
