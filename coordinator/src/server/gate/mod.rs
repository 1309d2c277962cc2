//! The gate in front of all services: who may call, how often, and how much a caller may make the coordinator hold.
//!
//! A call goes through [`Calls`] (counted), then [`Gate`]: identified and admitted, counted against its principal's rate
//! limit, received within its size limit and its principal's budget, given a turn, answered, and logged.

mod access;
mod answers;
mod budget;
mod caller;
mod counts;
mod layer;
mod meter;
mod principal;
mod quota;
mod refusals;
mod requests;
mod turns;

pub(super) use caller::Caller;
pub use layer::{Gate, Gated};
pub use meter::{Call, Calls, Metered};
pub use quota::{Allowance, Kind, Limiter, Quotas};
