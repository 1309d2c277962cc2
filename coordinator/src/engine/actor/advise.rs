//! Brings breeders and their advisers together: hands lessons on, takes advice in.

use evocache_proto::domain::SearchId;

use super::advisers::Taught;
use super::parts::Actor;

impl Actor {
    /// Hands the search's new lessons to its adviser, or dismisses the adviser of a search that has ended.
    pub(super) fn teach(&mut self, id: &SearchId) {
        let Some(search) = self.state.searches.get_mut(id) else {
            self.advisers.dismiss(id);
            return;
        };
        if search.is_rebuilding() {
            return;
        }
        let is_final = search.phase.is_final();
        let Some(breeder) = search.breeder_mut() else { return };
        let lessons = breeder.lessons();
        if is_final {
            self.advisers.dismiss(id);
        } else if !lessons.is_empty() {
            let taught = self.advisers.teach(id, lessons, || breeder.adviser());
            self.taught(id, taught);
        }
    }

    /// Gives the adviser's answer to the breeder.
    pub(super) fn taught(&mut self, id: &SearchId, taught: Taught) {
        let Some(breeder) = self.state.searches.get_mut(id).and_then(|search| search.breeder_mut()) else { return };
        match taught {
            Taught::Later => return,
            Taught::Advice(advice) => breeder.give(advice),
            Taught::NoAdviser => breeder.go_unadvised(),
        }
        // The search may have waited for this before proposing more.
        self.line.wake();
    }
}
