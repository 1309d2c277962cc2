//! The engine's thread: takes calls from a queue, decides, commits, applies, flushes once, answers.
//!
//! From bottom to top: `store_state`, `line` and `planners` are what the actor is made of, `parts` puts them together; `flush`,
//! `planning` and `carry_out` are the steps of a command; `serve`, `background`, `recovery` and `clock` are what it does besides;
//! `run` is the loop; `engine` starts and stops it.

mod background;
mod carry_out;
mod clock;
mod effects;
mod engine;
mod flush;
mod line;
mod parts;
mod planners;
mod planning;
mod recovery;
mod replay;
mod run;
mod serve;
mod settings;
mod store_state;
mod waiters;

pub use engine::{Engine, EnginePanic, Work, open};
pub use planners::ModelFitting;
pub use settings::{EngineError, Settings};
