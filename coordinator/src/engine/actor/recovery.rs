//! The way back to what is stored: when the engine starts, and when a store that has failed can be opened again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use evocache_proto::domain::SearchId;

use super::{Actor, Change, EngineError};
use crate::engine::State;
use crate::ports::{Store, StoreError};
use evocache_domain::lease::RetryPolicy;
use evocache_domain::time::Timestamp;

/// How often a store that has failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Facts that are read ahead of their recovery: so many at a time, so often.
const CHUNK: usize = 512;
const CHUNKS: usize = 4;

/// The state that the store's facts add up to. They are read on another thread, ahead of what is made of them.
pub(super) fn recover(store: &dyn Store, now: Timestamp, policy: &RetryPolicy) -> Result<State, EngineError> {
    let (sender, facts) = std::sync::mpsc::sync_channel(CHUNKS);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = store.replay(&mut |fact| {
                chunk.push(fact);
                if chunk.len() == CHUNK {
                    // Whoever has given up says why.
                    let _ = sender.send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)));
                }
            });
            let _ = sender.send(chunk);
            read
        });
        let state = State::recover(facts.into_iter().flatten(), now, policy);
        // A store that cannot be read has told only a part.
        let read = reader.join().map_err(|_| StoreError::Failed("reading it panicked: see the log".into()))?;
        read?;
        Ok(state?)
    })
}

impl Actor {
    /// Opens a store that has failed, where there is room for it, and goes on from what it holds, as after a restart.
    pub(super) fn look_at_store(&mut self, now: Timestamp) {
        let is_full = self.scarce.is_some_and(|room| room.is_used_up());
        if is_full || now.since(self.tried) < AGAIN {
            return;
        }
        self.tried = now;
        // What is decided and not answered is in the old store or nowhere.
        self.flush();
        match self.settings.store.reopen() {
            // It is well, or what is broken is not the store.
            Ok(false) if !self.stale => return,
            Ok(false) => {}
            Ok(true) => {
                self.stale = true;
                self.break_down(StoreError::Failed("it is open again, and not read yet".into()));
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be opened again yet");
                return self.break_down(error);
            }
        }
        match recover(self.settings.store.as_ref(), self.settings.clock.now(), &self.settings.policy) {
            Ok(state) => self.start_over(state),
            Err(error) => tracing::warn!(%error, "the store is open again, but cannot be read yet"),
        }
    }

    /// Goes on from another state, as after a restart.
    fn start_over(&mut self, state: State) {
        tracing::info!("the store is open again: the coordinator goes on from what is in it");
        let old = std::mem::replace(&mut self.state, state);
        for (id, old) in &old.searches {
            self.advisers.dismiss(id);
            let new = self.state.searches.get_mut(id).and_then(|search| search.bound.as_mut());
            if let (Some((_, new)), Some((_, old))) = (new, &old.bound) {
                new.succeed(old);
            }
        }
        let searches: BTreeSet<SearchId> =
            old.searches.into_keys().chain(self.state.searches.keys().cloned()).collect();
        for search in searches {
            self.teach(&search);
            // Whoever watches looks for himself what has become of it.
            self.news.push(Change { search, evaluation: None });
        }
        self.stale = false;
        self.broken = None;
        self.meters.broken.store(false, Relaxed);
        self.dirty = true;
    }
}
