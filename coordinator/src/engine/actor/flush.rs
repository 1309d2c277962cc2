//! Flush, then answer: nothing is answered before it is on disk.

use super::parts::{Actor, moment};
use super::store_state::Event;
use crate::engine::refusal::Refusal;
use crate::faults::{self, Point};
use crate::ports::StoreError;

impl Actor {
    /// Makes everything committed durable; then sends the answers and tells the watchers.
    pub(super) fn flush(&mut self) {
        if self.store_state.is_unsynced() {
            match self.sync() {
                Ok(()) => self.store_changed(Event::Flushed),
                Err(e) => self.flush_failed(e),
            }
        }
        if !self.answers.is_empty() {
            faults::pass(Point::AnswerBefore);
        }
        for (reply, result) in self.answers.drain(..) {
            // If the caller has gone away the effect stands, and a repeat of the call gets the same answer.
            let _ = reply.send(result);
        }
        faults::pass(Point::AnswerAfter);
        for change in self.news.drain(..) {
            // Fails if nobody watches.
            let _ = self.watchers.send(change);
        }
    }

    fn flush_failed(&mut self, error: StoreError) {
        tracing::error!(%error, "the store cannot be flushed: nothing more is decided until it is open again");
        for (_, result) in &mut self.answers {
            *result = Err(Refusal::Store(error.clone()));
        }
        self.news.clear();
        self.store_changed(Event::FlushFailed(error));
    }

    fn sync(&self) -> Result<(), StoreError> {
        let began = moment();
        let synced = self.settings.store.sync();
        self.meters.flushes.record(began.elapsed());
        synced
    }
}
