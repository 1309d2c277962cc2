//! The state as a whole: recovery from stored facts, and changes that are not stored. Facts are applied in `apply.rs`.

use std::collections::{BTreeMap, BTreeSet};

use evocache_proto::domain::{Epoch, RequestId, SearchId, WorkerId};

use super::inconsistent::Inconsistent;
use super::search::Search;
use super::touch::Touch;
use super::worker::Worker;
use crate::ports::RequestRecord;
use evocache_domain::time::Timestamp;

/// Everything the engine knows.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// All searches.
    pub searches: BTreeMap<SearchId, Search>,
    /// Deleted searches of which the store still has records. Their ids are not free yet.
    pub deleted: BTreeSet<SearchId>,
    /// Searches whose totals are being rebuilt.
    pub rebuilding: BTreeSet<SearchId>,
    /// All registered workers.
    pub workers: BTreeMap<WorkerId, Worker>,
    /// Answered calls, by request id.
    pub requests: BTreeMap<RequestId, RequestRecord>,
    /// When the state was recovered from the store: silence of workers counts from then on.
    pub recovered: Timestamp,
    /// The highest epoch of any remembered grant.
    pub last_epoch: Epoch,
}

impl State {
    /// The epoch of the next grant: above those of all earlier grants.
    ///
    /// It follows the clock where that is ahead, so it also exceeds the epochs of deleted searches, of earlier runs of the
    /// coordinator, and of what a restored backup does not contain.
    pub(in crate::engine) fn next_epoch(&self, now: Timestamp) -> Epoch {
        const PER_MILLISECOND: u64 = 1000;
        Epoch(self.last_epoch.0.saturating_add(1).max(now.0.saturating_mul(PER_MILLISECOND)))
    }

    pub(super) fn search_mut(&mut self, id: &SearchId) -> Result<&mut Search, Inconsistent> {
        self.searches.get_mut(id).ok_or_else(|| Inconsistent(format!("no search '{id}'")))
    }

    /// Rebuilds another part of a search's totals. Returns whether that was the last one.
    pub fn rebuild_some(&mut self, id: &SearchId) -> Result<bool, Inconsistent> {
        let Some(search) = self.searches.get_mut(id) else {
            // Deleted in the meantime.
            self.rebuilding.remove(id);
            return Ok(true);
        };
        let rebuilt = search.rebuild_some();
        self.note_rebuild(id.clone(), rebuilt)?;
        Ok(!self.rebuilding.contains(id))
    }

    /// Notes whether a search is being rebuilt, after a part of it was.
    pub(super) fn note_rebuild(&mut self, id: SearchId, rebuilt: Result<(), String>) -> Result<(), Inconsistent> {
        rebuilt.map_err(|e| Inconsistent(format!("search '{id}', without an excluded worker's results: {e}")))?;
        match self.searches.get(&id).is_some_and(Search::is_rebuilding) {
            true => self.rebuilding.insert(id),
            false => self.rebuilding.remove(&id),
        };
        Ok(())
    }

    /// Applies a change that is not stored.
    pub fn touch(&mut self, touch: Touch) {
        match touch {
            Touch::Seen { worker, at } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.seen = at;
                }
            }
            Touch::Renewed { search, candidate, state } => {
                let search = self.searches.get_mut(&search);
                if let Some(entry) = search.and_then(|search| search.candidate_mut(candidate)) {
                    entry.lease = state;
                }
            }
            Touch::WorkerFailed { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.failed += 1;
                }
            }
        }
    }
}
