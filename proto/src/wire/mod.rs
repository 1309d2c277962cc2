//! Conversions between messages and domain types.
//!
//! Domain types become messages by `From`. Messages become domain types by functions that return a [`WireError`].

mod error;
mod layout;
mod measurement;
mod question;
mod reason;
mod search;
mod search_state;
mod worker;

pub use error::WireError;
pub use layout::{cost_model, layout, schedule};
pub use measurement::measurement;
pub use question::question;
pub use reason::Reason;
pub use search::{budget, imported, search_spec, spec_draft};
pub use search_state::search_state;
pub use worker::{calibration, calibration_response, declaration, metrics, register_request};
