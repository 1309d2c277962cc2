//! What facts cause outside of the state: news for watchers, inputs for planners, answers to workers that leave.

use evocache_proto::domain::{SearchId, WorkerId};
use std::sync::Arc;

use crate::engine::handle::Change;
use crate::ports::Fact;
use evocache_domain::evaluation::Evaluation;

/// What the facts of one decision cause.
#[derive(Default)]
pub(super) struct Effects {
    /// For watchers, after the flush.
    pub(super) changes: Vec<Change>,
    /// Searches whose planners have learned from results that are now excluded, so that they are replaced.
    pub(super) planners_lost: Vec<SearchId>,
    /// Searches whose planners have new inputs, or are no longer needed.
    pub(super) fed: Vec<SearchId>,
    /// Workers that get no more work: those that wait are answered.
    pub(super) leaving: Vec<WorkerId>,
}

impl Effects {
    pub(super) fn of(facts: &[Fact]) -> Self {
        let mut effects = Self::default();
        for fact in facts {
            match fact {
                Fact::Evaluated { search, evaluation, .. } => {
                    effects.changed(search, Some(evaluation));
                    effects.fed.push(search.clone());
                }
                Fact::WorkerExcluded { search, .. } => {
                    effects.changed(search, None);
                    effects.planners_lost.push(search.clone());
                    effects.fed.push(search.clone());
                }
                Fact::SearchMoved { search, .. }
                | Fact::SearchExtended { search, .. }
                | Fact::SearchDeleted { search } => {
                    effects.changed(search, None);
                    effects.fed.push(search.clone());
                }
                Fact::SearchCreated { search, .. } | Fact::SearchBound { search, .. } => effects.changed(search, None),
                Fact::LeaseMoved { search, state, .. } if !state.is_open() => effects.changed(search, None),
                Fact::WorkerDraining { worker }
                | Fact::WorkerQuarantined { worker, .. }
                | Fact::WorkerForgotten { worker } => effects.leaving.push(worker.clone()),
                Fact::LeaseMoved { .. }
                | Fact::CandidateCreated { .. }
                | Fact::WorkerRegistered { .. }
                | Fact::SearchCleared { .. }
                | Fact::RequestAnswered { .. }
                | Fact::RequestForgotten { .. } => {}
            }
        }
        effects
    }

    fn changed(&mut self, search: &SearchId, evaluation: Option<&Arc<Evaluation>>) {
        self.changes.push(Change { search: search.clone(), evaluation: evaluation.cloned() });
    }
}
