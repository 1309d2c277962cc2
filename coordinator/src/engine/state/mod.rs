//! The engine's memory: what all facts add up to. It changes by [`State::apply`], [`State::touch`] and
//! [`State::rebuild_some`] only; decisions read it.

mod admission;
mod apply;
mod bound;
mod candidate;
mod inconsistent;
mod reasons;
mod rebuild;
mod results;
mod root;
mod search;
mod totals;
mod touch;
mod worker;

pub use bound::Bound;
pub use candidate::Candidate;
pub use inconsistent::Inconsistent;
pub use root::State;
pub use search::Search;
pub use totals::Totals;
pub use touch::Touch;
pub use worker::{Standing, Worker};
