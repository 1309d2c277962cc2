//! An image server on one model: OpenAI's images API over HTTP, with a caching schedule that a search found.
//!
//! - `http`, `connections`: the pages, and the connections that ask for them.
//! - `request`, `refusal`: what a body may contain, and how a request is refused.
//! - [`plan`], `run`: the schedule and its figures; from a request to a run of the model.
//! - `desk`, `queue`, `estimate`: what waits for the device, in which order, and how long it takes.
//! - `studio`, `device`, `embeddings`: the thread that loads the model and draws, and the encoded texts that it keeps.
//! - `follow`: the search whose best schedule is run.
//! - `door`, `paces`: who may ask, and for how many pictures.
//! - `series`: many prompts without clients.
//! - `pictures`, `meters`, `site`: kept pictures, counters, and what all requests share.
//!
//! The device has a thread of its own, so that no computation holds up the async runtime.
//!
//! **Invariant:** no prompt and no picture is in a log, a metric or a refusal. Knows nothing of the command line, of
//! signals or of exit codes; `cli` does. What a schedule does is the executor's business.

mod chance;
mod connections;
mod desk;
mod device;
mod door;
mod embeddings;
mod estimate;
mod follow;
mod http;
mod limits;
mod meters;
mod paces;
mod pictures;
pub mod plan;
mod queue;
mod refusal;
mod request;
mod run;
mod series;
mod site;
mod start;
mod studio;
mod wall;

pub use follow::Source;
pub use run::Defaults;
pub use series::{Finished, Series, Sketch};
pub use start::{ServeError, ServeOptions, Server};
pub use studio::{StudioError, StudioOptions};
