//! A candidate in memory.

use evocache_domain::lease;
use evocache_domain::search::Proposal;
use evocache_domain::time::Timestamp;

/// A candidate and the state of its lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The schedule, the prompts to evaluate, and where the candidate comes from.
    pub proposal: Proposal,
    /// Whether it waits, is leased, or has ended.
    pub lease: lease::State,
    /// When the current or last lease was granted.
    pub granted: Timestamp,
    /// Its evaluation, as an index into [`Search::evaluations`](super::Search::evaluations).
    pub evaluation: Option<usize>,
}
