//! What the engine does as time passes, whether or not anybody calls.

use std::time::Duration;

use super::parts::Actor;
use crate::engine::command::Command;
use crate::engine::refusal::Refusal;

/// How often the clock is looked at.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// How often old things are forgotten.
const TIDY: Duration = Duration::from_secs(60);

impl Actor {
    /// Does what is due: answers overdue workers, expires leases, looks at the store and its room.
    pub(super) fn look_at_clock(&mut self) {
        let now = self.settings.clock.now();
        self.dismiss_overdue(now);
        if now.since(self.ticked) < TICK {
            return;
        }
        self.ticked = now;
        self.look_at_room();
        self.background(&Command::Tick);
        if self.line.waiters.len() > 0 {
            // A candidate's back-off may have passed.
            self.line.wake();
        }
        if now.since(self.tidied) >= TIDY {
            self.tidied = now;
            self.background(&Command::Tidy);
        }
        // Last: after a recovery, workers must be heard before a clock that stood still expires their leases.
        self.look_at_store(now);
    }

    pub(super) fn look_at_room(&mut self) {
        let room = self.settings.store.room();
        let before = self.store_state.scarce();
        self.store_state.note_room(room);
        match (before, self.store_state.scarce()) {
            (None, Some(room)) => tracing::error!("nothing new is begun: {}", Refusal::Full(room)),
            (Some(_), None) => tracing::info!("the store's disk has room again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.meters.room(room);
    }
}
