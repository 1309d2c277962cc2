//! What an engine is made of, and why it may not start.

use std::sync::Arc;

use super::planners::ModelFitting;
use crate::engine::state::Inconsistent;
use crate::ports::{Clock, IdSource, Store, StoreError};
use evocache_domain::lease::RetryPolicy;

/// What an engine is made of.
pub struct Settings {
    /// Where facts are stored.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub ids: Arc<dyn IdSource>,
    /// How long leases last and how often a candidate is tried.
    pub policy: RetryPolicy,
    /// Where error models are fitted.
    pub fitting: ModelFitting,
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The facts cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The facts contradict each other.
    #[error("the store's records contradict each other: {0}")]
    Inconsistent(#[from] Inconsistent),
    /// The operating system refused a thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}
