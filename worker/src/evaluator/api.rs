//! The interface between agent and evaluator.
//!
//! **Invariant:** knows nothing of candle, so that an evaluator can use any framework.

use std::num::NonZeroU32;

use evocache_proto::domain::{Calibration, Declaration, Measurement, Schedule};

pub use crate::cancel::CancelToken;

/// Measures schedules on one device. One thread makes all calls, one at a time.
pub trait Evaluate: Send {
    /// This worker's device, model and metrics.
    fn declaration(&self) -> Declaration;

    /// Prepares for a search's candidates: encodes its prompts and scores the uncached run. A repeated call with an
    /// equal calibration returns at once.
    fn prepare(&mut self, calibration: &Calibration, cancel: &CancelToken) -> Result<(), EvaluateError>;

    /// Measures one candidate under the calibration that was last passed to [`prepare`](Self::prepare).
    fn evaluate(&mut self, task: Task<'_>, cancel: &CancelToken) -> Result<Measurement, EvaluateError>;
}

/// One measurement to make.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The schedule to measure.
    pub schedule: &'a Schedule,
    /// How many prompts of the calibration to use, from the first; `None`: all.
    pub prompts: Option<NonZeroU32>,
    /// Whether to return a calibration profile with the measurement.
    pub profile: bool,
}

impl<'a> Task<'a> {
    /// The schedule on all prompts, without a profile.
    pub fn whole(schedule: &'a Schedule) -> Self {
        Self { schedule, prompts: None, profile: false }
    }
}

/// Why a preparation or an evaluation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The cancel token was set.
    #[error("the evaluation was canceled")]
    Cancelled,
    /// [`Evaluate::evaluate`] was called before [`Evaluate::prepare`].
    #[error("no calibration was prepared")]
    NotPrepared,
    /// The calibration needs something that this worker does not support.
    #[error("the calibration cannot be run: {0}")]
    Calibration(String),
    /// The schedule is for another model or has a step count that the calibration does not list.
    #[error("the schedule cannot be run: {0}")]
    Schedule(String),
    /// The task asks for more prompts than the calibration has.
    #[error("cannot evaluate the first {wanted} prompts: the calibration has {found}")]
    Prompts {
        /// Prompts that the task asks for.
        wanted: u32,
        /// Prompts in the calibration.
        found: usize,
    },
    /// A result is NaN or infinite.
    #[error("{what} is not finite for prompt {prompt} ('{text}')")]
    NotFinite {
        /// The value: a metric or a latent.
        what: String,
        /// Index of the prompt in the calibration.
        prompt: usize,
        /// Text of the prompt.
        text: String,
    },
    /// The run needs more memory than the worker may use.
    #[error("{what} needs about {needed} bytes at its peak, this worker may use {limit}")]
    Memory {
        /// The run that does not fit.
        what: &'static str,
        /// Predicted peak in bytes.
        needed: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The model, the device or a file failed.
    #[error("{message}")]
    Failed {
        /// The error message.
        message: String,
        /// What the user can do about it.
        hint: Option<String>,
        /// Whether another attempt may succeed.
        retryable: bool,
    },
}

impl EvaluateError {
    /// Whether another attempt, here or on another worker, may succeed. A schedule's result is the same everywhere.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { retryable, .. } => *retryable,
            Self::Cancelled | Self::NotPrepared => true,
            Self::Calibration(_) | Self::Schedule(_) | Self::Prompts { .. } | Self::NotFinite { .. } => false,
            // Another worker may have more memory, but the retry may go to one with as little.
            Self::Memory { .. } => false,
        }
    }

    /// What the user can do about it, if known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Failed { hint, .. } => hint.as_deref(),
            Self::Memory { .. } => Some("use a smaller batch, smaller pictures, --vae-tiling or a larger --memory"),
            _ => None,
        }
    }
}
