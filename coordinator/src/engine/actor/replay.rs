//! Makes the state from what is stored.

use super::settings::EngineError;
use crate::engine::state::State;
use crate::ports::{Store, StoreError};
use evocache_domain::lease::RetryPolicy;
use evocache_domain::time::Timestamp;

/// Facts are read ahead in chunks of this size, at most this many chunks.
const CHUNK: usize = 512;
const CHUNKS: usize = 4;

/// The state that the store's facts add up to. Another thread reads them ahead of their application.
pub(super) fn recover(store: &dyn Store, now: Timestamp, policy: &RetryPolicy) -> Result<State, EngineError> {
    let (sender, facts) = std::sync::mpsc::sync_channel(CHUNKS);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = store.replay(&mut |fact| {
                chunk.push(fact);
                if chunk.len() == CHUNK {
                    // If the receiver has given up, it reports why.
                    let _ = sender.send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)));
                }
            });
            let _ = sender.send(chunk);
            read
        });
        let state = State::recover(facts.into_iter().flatten(), now, policy);
        // Checked first: a store that cannot be read has delivered only some of its facts.
        let read = reader.join().map_err(|_| StoreError::Failed("reading it panicked: see the log".into()))?;
        read?;
        Ok(state?)
    })
}
