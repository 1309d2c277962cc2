//! Long work that is done in parts, one part between two flushes: clearing deleted searches, rebuilding searches.

use super::parts::Actor;
use super::store_state::Event;
use crate::engine::command::Command;
use crate::engine::handle::Change;
use crate::ports::Cleared;

impl Actor {
    /// Whether more parts are to be done.
    pub(super) fn has_background_work(&self) -> bool {
        self.clearing || (!self.state.rebuilding.is_empty() && self.store_state.is_usable())
    }

    /// Removes some records of a deleted search. Those of a small one are gone before its deletion is answered.
    pub(super) fn clear_some(&mut self) {
        self.clearing = false;
        if !self.store_state.is_usable() || self.store_state.used_up().is_some() {
            return;
        }
        let Some(search) = self.state.deleted.first().cloned() else { return };
        match self.settings.store.clear(&search) {
            Ok(Cleared::Later) => {}
            Ok(Cleared::Some) => {
                self.store_changed(Event::Committed);
                self.clearing = true;
            }
            Ok(Cleared::All) => {
                // There may be another deleted search.
                self.clearing = true;
                self.background(&Command::Clear { search });
            }
            Err(e) => self.store_changed(Event::Failed(e)),
        }
    }

    /// Does another part of the rebuild of a search from which a worker was excluded.
    pub(super) fn rebuild_some(&mut self) {
        if !self.store_state.is_usable() {
            return;
        }
        let Some(search) = self.state.rebuilding.first().cloned() else { return };
        match self.state.rebuild_some(&search) {
            Ok(false) => {}
            Ok(true) => {
                self.feed_planner(&search);
                self.news.push(Change { search, evaluation: None });
                self.line.wake();
            }
            Err(e) => self.contradicted(&e),
        }
    }
}
