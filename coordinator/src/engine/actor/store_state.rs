//! The store as the engine sees it: whether memory and disk agree, and whether there is room.
//!
//! | from | event | to |
//! |---|---|---|
//! | Synced, Unsynced | committed | Unsynced |
//! | Failed, Reopened | committed | unchanged: nothing is decided in these states |
//! | Unsynced | flushed | Synced |
//! | Failed(unsynced) | flushed | Failed: what was committed before the failure may be answered |
//! | Synced, Failed, Reopened | flushed | unchanged |
//! | Synced | failed | Failed |
//! | Unsynced | failed | Failed(unsynced): what was committed before is still to be flushed |
//! | Failed, Reopened | failed | the same with the new error |
//! | Synced, Unsynced, Failed | flush failed | Failed: what was committed may or may not be on disk |
//! | Reopened | flush failed | Reopened with the new error |
//! | any | reopened | Reopened: memory still describes the store as it was before |
//! | any | recovered | Synced: memory was rebuilt from the store |
//!
//! "Failed" is any failure after which memory and disk may differ: of a commit, of clearing a deleted search, of reopening, or a
//! fact that contradicts the state. In Failed and Reopened nothing is decided.
//!
//! The room on the disk is independent of this: enough, scarce (nothing new is begun), or used up (nothing is written).

use crate::ports::{Room, StoreError};

/// Whether memory and disk agree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// Everything committed is on disk.
    Synced,
    /// Something committed may be in memory only.
    Unsynced,
    /// Memory and disk may differ.
    Failed {
        /// What went wrong.
        error: StoreError,
        /// Whether something committed before the failure is still to be flushed.
        unsynced: bool,
    },
    /// The store is open again, and memory does not describe it.
    Reopened {
        /// Why the engine does not decide yet.
        error: StoreError,
    },
}

/// What happens to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Facts were committed, or records removed.
    Committed,
    /// Everything committed is on disk.
    Flushed,
    /// Something other than a flush failed.
    Failed(StoreError),
    /// A flush failed.
    FlushFailed(StoreError),
    /// The failed store was closed and opened again.
    Reopened,
    /// Memory was rebuilt from the store.
    Recovered,
}

/// What `event` does; the table at the top of this file.
fn step(from: Condition, event: Event) -> Condition {
    use Condition as C;
    use Event as E;
    match (from, event) {
        (C::Synced | C::Unsynced, E::Committed) => C::Unsynced,
        (from @ (C::Failed { .. } | C::Reopened { .. }), E::Committed) => from,

        (C::Synced | C::Unsynced, E::Flushed) => C::Synced,
        (C::Failed { error, .. }, E::Flushed) => C::Failed { error, unsynced: false },
        (from @ C::Reopened { .. }, E::Flushed) => from,

        (C::Synced, E::Failed(error)) => C::Failed { error, unsynced: false },
        (C::Unsynced, E::Failed(error)) => C::Failed { error, unsynced: true },
        (C::Failed { unsynced, .. }, E::Failed(error)) => C::Failed { error, unsynced },
        (C::Synced | C::Unsynced | C::Failed { .. }, E::FlushFailed(error)) => C::Failed { error, unsynced: false },
        (C::Reopened { .. }, E::Failed(error) | E::FlushFailed(error)) => C::Reopened { error },

        (C::Synced | C::Unsynced | C::Failed { .. } | C::Reopened { .. }, E::Reopened) => {
            C::Reopened { error: StoreError::Failed("it was opened again and has not been read yet".into()) }
        }
        (C::Synced | C::Unsynced | C::Failed { .. } | C::Reopened { .. }, E::Recovered) => C::Synced,
    }
}

/// The store's condition, and its room if that is scarce.
#[derive(Debug)]
pub(super) struct StoreState {
    condition: Condition,
    scarce: Option<Room>,
}

impl StoreState {
    /// Memory was just recovered from the store.
    pub(super) fn new() -> Self {
        Self { condition: Condition::Synced, scarce: None }
    }

    pub(super) fn step(&mut self, event: Event) {
        let from = std::mem::replace(&mut self.condition, Condition::Synced);
        self.condition = step(from, event);
    }

    /// Notes the room on the disk; `None`: unknown, which counts as enough.
    pub(super) fn note_room(&mut self, room: Option<Room>) {
        self.scarce = room.filter(Room::is_scarce);
    }

    /// Whether commands may be decided: memory and disk agree. The error says why not.
    pub(super) fn check_usable(&self) -> Result<(), &StoreError> {
        match &self.condition {
            Condition::Synced | Condition::Unsynced => Ok(()),
            Condition::Failed { error, .. } | Condition::Reopened { error } => Err(error),
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.check_usable().is_ok()
    }

    /// Whether something is to be flushed.
    pub(super) fn is_unsynced(&self) -> bool {
        matches!(self.condition, Condition::Unsynced | Condition::Failed { unsynced: true, .. })
    }

    /// Whether memory is to be rebuilt from the store.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self.condition, Condition::Reopened { .. })
    }

    /// The room, if it is scarce: nothing new is begun.
    pub(super) fn scarce(&self) -> Option<Room> {
        self.scarce
    }

    /// The room, if it is used up: nothing is written.
    pub(super) fn used_up(&self) -> Option<Room> {
        self.scarce.filter(Room::is_used_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> StoreError {
        StoreError::Failed(text.into())
    }

    fn failed(text: &str, unsynced: bool) -> Condition {
        Condition::Failed { error: error(text), unsynced }
    }

    fn reopened(text: &str) -> Condition {
        Condition::Reopened { error: error(text) }
    }

    /// Every state with every event, row by row as in the table.
    #[test]
    fn every_transition_of_the_table() {
        use Condition::{Synced, Unsynced};
        let unread = || reopened("it was opened again and has not been read yet");
        let from = || [Synced, Unsynced, failed("old", false), failed("old", true), reopened("old")];
        let table: [(Event, [Condition; 5]); 6] = [
            (Event::Committed, [Unsynced, Unsynced, failed("old", false), failed("old", true), reopened("old")]),
            (Event::Flushed, [Synced, Synced, failed("old", false), failed("old", false), reopened("old")]),
            (
                Event::Failed(error("new")),
                [failed("new", false), failed("new", true), failed("new", false), failed("new", true), reopened("new")],
            ),
            (
                Event::FlushFailed(error("new")),
                [
                    failed("new", false),
                    failed("new", false),
                    failed("new", false),
                    failed("new", false),
                    reopened("new"),
                ],
            ),
            (Event::Reopened, [unread(), unread(), unread(), unread(), unread()]),
            (Event::Recovered, [Synced, Synced, Synced, Synced, Synced]),
        ];
        for (event, to) in table {
            for (from, to) in from().into_iter().zip(to) {
                assert_eq!(step(from.clone(), event.clone()), to, "{from:?} after {event:?}");
            }
        }
    }

    #[test]
    fn commands_are_decided_only_while_memory_and_disk_agree() {
        let mut store = StoreState::new();
        assert!(store.is_usable() && !store.is_unsynced() && !store.is_unread());
        store.step(Event::Committed);
        assert!(store.is_usable() && store.is_unsynced());
        store.step(Event::Failed(error("commit")));
        assert_eq!(store.check_usable(), Err(&error("commit")));
        assert!(store.is_unsynced(), "what was committed before is still flushed and answered");
        store.step(Event::Flushed);
        assert!(!store.is_usable() && !store.is_unsynced() && !store.is_unread());
        store.step(Event::Reopened);
        assert!(!store.is_usable() && store.is_unread());
        store.step(Event::Recovered);
        assert!(store.is_usable() && !store.is_unread());
    }

    #[test]
    fn room_is_enough_scarce_or_used_up() {
        let mut store = StoreState::new();
        let room = |left| Some(Room { left, reserve: 100 });
        for (room, scarce, used_up) in [
            (None, None, None),
            (room(100), None, None),
            (room(99), room(99), None),
            (room(25), room(25), None),
            (room(24), room(24), room(24)),
            (room(100), None, None),
        ] {
            store.note_room(room);
            assert_eq!((store.scarce(), store.used_up()), (scarce, used_up));
        }
        store.note_room(room(24));
        store.step(Event::Failed(error("full")));
        assert_eq!(store.used_up(), room(24), "a failure does not change the room");
    }
}
