//! What the evaluations of a search add up to, besides what its breeder learns from them; and the rebuild of both.

use std::collections::BTreeMap;
use std::time::Duration;

use evocache_proto::domain::CandidateId;

use evocache_domain::reference::References;
use evocache_domain::search::Breeder;
use evocache_domain::trust::Trust;

/// Sums and comparisons over the evaluations of a search.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Time that devices were busy.
    pub device_time: Duration,
    /// Prompts of all evaluations, without those of excluded workers.
    pub evaluated_prompts: u64,
    /// Uncached latencies, by kind of device.
    pub references: References,
    /// How well the measurements of each worker agree with those of others.
    pub trust: Trust,
    /// For each candidate that was measured again, the candidates that repeat it.
    pub repeats: BTreeMap<CandidateId, Vec<CandidateId>>,
}

/// How far a rebuild of totals and breeder has come. While `rebuild.rs` works on a part, these stand in the search's place
/// and the search's own here.
#[derive(Debug, Clone)]
pub(super) struct Rebuild {
    pub(super) breeder: Breeder,
    pub(super) totals: Totals,
    /// Number of candidates that the breeder knows.
    pub(super) recorded: usize,
    /// Number of evaluations that are added up.
    pub(super) told: u64,
}
