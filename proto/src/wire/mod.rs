//! Conversions between messages and domain types.
//!
//! Domain types become messages by `From`. Messages become domain types by functions that return a [`WireError`].

mod error;
mod layout;
mod measurement;
mod search;
mod worker;

pub use error::WireError;
pub use layout::{cost_model, layout, schedule};
pub use measurement::measurement;
pub use search::{budget, imported, search_spec, spec_draft};
pub use worker::{calibration, calibration_response, declaration, metrics, register_request};
