//! Error models: predict the quality loss of a schedule from the results so far. The [`Planner`] plans with the best of
//! them.
//!
//! Three rivals: [`cells`] (a weight for every cell), [`ages`] (one weight per slot and per step, times the age of what
//! is reused), and both, where the cells explain the residuals of the ages. Each model predicts a result before it
//! learns from it. [`guard`] records how well, and a model with a poor record plans nothing. From the best model
//! [`predicted_front`] builds a whole front; its schedules with the largest expected gain of hypervolume are planned.
//!
//! Plans depend on the inputs and their order alone. Only the first cost and the first quality metric are modeled, and
//! reuse and forecast are the same. Does not decide when to plan: that is `planner_link.rs`.

mod ages;
mod cells;
mod error_model;
mod fit;
mod grid;
mod guard;
mod link;
mod planner;
mod predicted_front;
mod prior;

pub use planner::Planner;
