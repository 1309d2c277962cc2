//! What the agent asks of an evaluator. No candle here: an evaluator may be written on anything.

use std::num::NonZeroU32;

use evocache_proto::domain::{Calibration, Declaration, Measurement, Schedule};

pub use crate::cancel::CancelToken;

/// Measures schedules on one device. Driven by one thread; calls do not overlap.
pub trait Evaluate: Send {
    /// What this worker is and can measure.
    fn declaration(&self) -> Declaration;

    /// Makes ready for a search's candidates: encodes its prompts and measures the uncached baseline. Calling it again
    /// with an equal calibration costs nothing.
    fn prepare(&mut self, calibration: &Calibration, cancel: &CancelToken) -> Result<(), EvaluateError>;

    /// Measures one candidate of the calibration given to [`prepare`](Self::prepare) last.
    fn evaluate(&mut self, task: Task<'_>, cancel: &CancelToken) -> Result<Measurement, EvaluateError>;
}

/// What to measure of one candidate.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// What to compute when.
    pub schedule: &'a Schedule,
    /// Only the first so many prompts of the calibration; `None`: all of them.
    pub prompts: Option<NonZeroU32>,
    /// Whether a calibration profile is welcome with the measurement.
    pub profile: bool,
}

impl<'a> Task<'a> {
    /// The schedule on all prompts, without a profile.
    pub fn whole(schedule: &'a Schedule) -> Self {
        Self { schedule, prompts: None, profile: false }
    }
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The token was set.
    #[error("the evaluation was cancelled")]
    Cancelled,
    /// [`Evaluate::evaluate`] before [`Evaluate::prepare`].
    #[error("no calibration was prepared")]
    NotPrepared,
    /// The calibration asks for something that this worker cannot do.
    #[error("the calibration cannot be run: {0}")]
    Calibration(String),
    /// The schedule is for another model, or has a step count that the calibration does not list.
    #[error("the schedule cannot be run: {0}")]
    Schedule(String),
    /// The task asks for more prompts than the calibration has.
    #[error("the first {wanted} prompts cannot be evaluated: the calibration has {found}")]
    Prompts {
        /// So many are asked for.
        wanted: u32,
        /// Prompts of the calibration.
        found: usize,
    },
    /// A result is NaN or infinite.
    #[error("{what} is not finite for prompt {prompt} ('{text}')")]
    NotFinite {
        /// What: a metric's name, `latents`, …
        what: String,
        /// Number of the prompt in the calibration.
        prompt: usize,
        /// Its text.
        text: String,
    },
    /// The run would take more memory than the worker may use.
    #[error("{what} needs about {needed} bytes at its peak, this worker may use {limit}")]
    Memory {
        /// What would not fit.
        what: &'static str,
        /// Predicted.
        needed: u64,
        /// What there is.
        limit: u64,
    },
    /// The model, the device or a file failed.
    #[error("{message}")]
    Failed {
        /// What happened.
        message: String,
        /// The way out, where there is one.
        hint: Option<String>,
        /// Whether another attempt may succeed.
        retryable: bool,
    },
}

impl EvaluateError {
    /// Whether another attempt, here or on another worker, may succeed. What a schedule does is the same everywhere.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { retryable, .. } => *retryable,
            Self::Cancelled | Self::NotPrepared => true,
            Self::Calibration(_) | Self::Schedule(_) | Self::Prompts { .. } | Self::NotFinite { .. } => false,
            // Another worker may have more, but the search would hand the candidate to one like this again.
            Self::Memory { .. } => false,
        }
    }

    /// The way out, where there is one to tell.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Failed { hint, .. } => hint.as_deref(),
            Self::Memory { .. } => Some("use a smaller batch or picture, --vae-tiling, or a larger --memory"),
            _ => None,
        }
    }
}
