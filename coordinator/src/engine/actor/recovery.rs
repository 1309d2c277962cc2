//! Opens a store that has failed again, and goes on from what it holds, as after a restart.

use std::collections::BTreeSet;
use std::time::Duration;

use evocache_proto::domain::SearchId;

use super::parts::Actor;
use super::replay::recover;
use super::store_state::Event;
use crate::engine::handle::Change;
use crate::engine::state::State;
use evocache_domain::time::Timestamp;

/// How often a store that has failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

impl Actor {
    /// Opens a store that has failed, if there is room for it.
    pub(super) fn look_at_store(&mut self, now: Timestamp) {
        if self.store_state.used_up().is_some() || now.since(self.tried) < RETRY {
            return;
        }
        self.tried = now;
        // Facts that are not flushed are in the old store or lost: flush and answer before it is closed.
        self.flush();
        match self.settings.store.reopen() {
            // The store is well, or what failed is not the store.
            Ok(false) if !self.store_state.is_unread() => return,
            Ok(false) => {}
            Ok(true) => self.store_changed(Event::Reopened),
            Err(error) => {
                tracing::warn!(%error, "the store cannot be opened again yet");
                return self.store_changed(Event::Failed(error));
            }
        }
        match recover(self.settings.store.as_ref(), self.settings.clock.now(), &self.settings.policy) {
            Ok(state) => self.start_over(state),
            Err(error) => tracing::warn!(%error, "the store is open again but cannot be read yet"),
        }
    }

    /// Replaces the state, as a restart would.
    fn start_over(&mut self, state: State) {
        tracing::info!("the store is open again: the coordinator goes on from what it holds");
        let old = std::mem::replace(&mut self.state, state);
        for (id, old) in &old.searches {
            self.planners.dismiss(id);
            let new = self.state.searches.get_mut(id).and_then(|search| search.breeder_mut());
            if let (Some(new), Some(old)) = (new, old.breeder()) {
                new.take_over_from(old);
            }
        }
        let searches: BTreeSet<SearchId> =
            old.searches.into_keys().chain(self.state.searches.keys().cloned()).collect();
        for search in searches {
            self.feed_planner(&search);
            // Watchers look for themselves what has become of it.
            self.news.push(Change { search, evaluation: None });
        }
        self.store_changed(Event::Recovered);
        self.line.wake();
    }
}
